package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"quire"
	"quire/spawner"
)

type doctorStorageCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
}

// Run looks at the project root as the spawner does, also while nothing runs.
func (d doctorStorageCmd) Run() error {
	c, err := loadConfig(d.Config, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	info, err := os.Stat(c.Dirs.Projects)
	if err != nil {
		return fmt.Errorf("%w: Quire makes it when it starts; mount first what shall be there", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 && os.Geteuid() != 0 {
		return errors.New("only root can look at " + c.Dirs.Projects)
	}
	s := spawner.CheckStorage(c.Dirs.Projects, uint32(os.Geteuid()))
	fmt.Println(s)
	if s.Total > 0 {
		fmt.Printf("%.1f of %.1f GB are free.\n", float64(s.Free)/1e9, float64(s.Total)/1e9)
	}
	if s.ID != "" {
		fmt.Println("Its identity is " + string(s.ID) + ".")
	} else if s.Fit {
		fmt.Println("It has no identity yet: the first node that starts on it gives it one.")
	}
	for _, w := range s.Warnings {
		fmt.Println(w)
	}
	if s.Problem != "" {
		return errors.New(s.Problem)
	}
	return nil
}

type doctorReachCmd struct {
	URL string `arg:"" help:"The address, as in http://quire.example.org."`
}

// Run says at which step it fails: the name, the port, or what answers there.
func (d doctorReachCmd) Run(ctx context.Context) error {
	u, err := url.Parse(d.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("%q is not an address like http://HOST:PORT", d.URL)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// As all programs here see names: the directory's hosts too.
	out, err := exec.CommandContext(ctx, "getent", "ahosts", u.Hostname()).Output()
	if err != nil {
		return fmt.Errorf("the name %s leads nowhere from here: put it into DNS or /etc/hosts", u.Hostname())
	}
	address, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	fmt.Printf("%s is %s.\n", u.Hostname(), address)
	port := firstOf(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	began := time.Now()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(address, port))
	if err != nil {
		return fmt.Errorf("port %s there does not answer: %w", port, err)
	}
	conn.Close()
	fmt.Printf("Port %s answers after %d ms.\n", port, time.Since(began).Milliseconds())
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.URL, "/")+"/healthz", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("what listens there does not speak %s: %w", u.Scheme, err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 200))
	if res.StatusCode == http.StatusOK {
		fmt.Println("The portal and its database answer.")
		return nil
	}
	fmt.Printf("It answers: %s\n", firstOf(strings.TrimSpace(string(b)), res.Status))
	return nil
}

type doctorNamesCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
}

// Run prints what to write to whoever keeps DNS and certificates.
func (d doctorNamesCmd) Run(ctx context.Context) error {
	c, admin, err := adminOf(d.Config)
	if err != nil {
		return err
	}
	portal, err := url.Parse(c.origins(0, 0).Portal)
	if err != nil {
		return err
	}
	var dcs []quire.DataCenter
	if err := admin.call(ctx, "GET", "/data-centers", nil, &dcs); err != nil {
		return err
	}
	fmt.Printf("DNS\n  %-40s the server\n", portal.Hostname())
	for _, h := range c.Hosts {
		fmt.Printf("  %-40s the server (leads to the name above)\n", h)
	}
	certs := []string{fmt.Sprintf("  the server       %s", strings.Join(append([]string{portal.Hostname()}, c.Hosts...), ", "))}
	for _, dc := range dcs {
		apps := firstOf(dc.Apps, c.origins(0, 0).Apps)
		host := strings.TrimPrefix(strings.TrimPrefix(apps, "http://"), "https://")
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		what := "the gateway of " + dc.Name
		if strings.HasPrefix(host, "*.") {
			what += ", a wildcard record: each person and project is a name below it"
		} else {
			what += ", one origin for all its apps: trusted users only"
		}
		fmt.Printf("  %-40s %s\n", host, what)
		certs = append(certs, fmt.Sprintf("  the gateway %-4s %s", dc.Name, host))
	}
	fmt.Printf("\nCertificates (subject alternative names)\n%s\n", strings.Join(certs, "\n"))
	if len(dcs) == 0 {
		fmt.Println("No data center has joined yet; each needs a wildcard name of its own, as in *.apps.example.org.")
	}
	fmt.Println("\nWith TLS, take another domain for apps than the portal's: a notebook's page is then a stranger to the portal. Without TLS it must be the same domain, or browsers cannot be handed over.")
	return nil
}

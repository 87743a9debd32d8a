package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	fileSize   = 256 << 20 // bytes of the file that goes up and down
	fileRounds = 3
	filePiece  = 8 << 20 // what the Workbench's page sends at once on a fast line
	jupyterCut = 1 << 20 // what Jupyter's page sends at once
	listed     = 10_000
)

// benchFiles sends a file up to the Workbench and back, against cp of the same
// file on the same disk and against Jupyter's own way, and lists a directory of
// ten thousand files. All three run as the same account, on unix sockets, one
// after the other in each round.
func benchFiles(ctx context.Context) error {
	base, err := workshop("home", "project", "project/many")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	self, home, project := base+"/quire", base+"/home", base+"/project"
	content := make([]byte, fileSize)
	rand.Read(content)
	source := base + "/source"
	if err := os.WriteFile(source, content, 0o644); err != nil {
		return err
	}
	for i := range listed {
		if err := os.WriteFile(fmt.Sprintf("%s/many/file-%05d.csv", project, i), nil, 0o644); err != nil {
			return err
		}
	}
	quire, end, err := serving(ctx, home, project, home+"/w.sock", self, "workbench", "--socket", home+"/w.sock", "--url-prefix", "/workbench", "--home", project)
	if err != nil {
		return err
	}
	defer end()
	jupyter, end, err := serving(ctx, home, project, home+"/j.sock", "/usr/bin/jupyter-notebook", "--no-browser", "--NotebookApp.sock="+home+"/j.sock",
		"--NotebookApp.token=", "--NotebookApp.password=", "--NotebookApp.disable_check_xsrf=True", "--NotebookApp.notebook_dir="+project, "--NotebookApp.max_body_size=1073741824")
	if err != nil {
		return err
	}
	defer end()

	rate := func(f func() error) (float64, error) {
		began := time.Now()
		err := f()
		return fileSize / 1e6 / time.Since(began).Seconds(), err
	}
	figures := map[string][]float64{}
	for round := range fileRounds {
		for _, one := range []struct {
			name string
			do   func() error
		}{
			{"cp", func() error {
				out, err := exec.CommandContext(ctx, "cp", source, project+"/copied").CombinedOutput()
				if err != nil {
					return fmt.Errorf("cp: %s", out)
				}
				return nil
			}},
			{"up", func() error { return quire.upload(ctx, "up", content) }},
			{"jupyter up", func() error { return jupyter.uploadAsJupyter(ctx, "jup", content) }},
			{"down", func() error {
				return quire.download(ctx, "/workbench/api/raw?root=project&path=up&download=1", content)
			}},
			{"jupyter down", func() error { return jupyter.download(ctx, "/files/jup?download=1", content) }},
		} {
			mbs, err := rate(one.do)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			note("round %d, %s: %.0f MB/s", round+1, one.name, mbs)
			figures[one.name] = append(figures[one.name], mbs)
		}
		for _, name := range []string{"copied", "up", "jup"} {
			if err := os.Remove(project + "/" + name); err != nil {
				return err
			}
		}
	}
	var lists []float64
	for range 7 {
		began := time.Now()
		b, err := quire.ask(ctx, "GET", "/workbench/api/list?root=project&path=many", nil)
		if err != nil {
			return err
		}
		if n := bytes.Count(b, []byte(".csv\"")); n < listed {
			return fmt.Errorf("the list has %d files", n)
		}
		lists = append(lists, float64(time.Since(began).Microseconds())/1000)
	}
	report("upload_vs_cp", median(figures["up"]), "MB/s", median(figures["cp"]))
	report("upload_vs_jupyter", median(figures["up"]), "MB/s", median(figures["jupyter up"]))
	report("download_vs_cp", median(figures["down"]), "MB/s", median(figures["cp"]))
	report("download_vs_jupyter", median(figures["down"]), "MB/s", median(figures["jupyter down"]))
	report("listing_10k_ms", median(lists), "ms", 0)
	return nil
}

// A fileServer is an app on its unix socket.
type fileServer struct{ client http.Client }

// serving starts a program as the account and waits for its socket.
func serving(ctx context.Context, home, project, socket string, argv ...string) (*fileServer, func(), error) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Dir, c.Env = project, []string{"HOME=" + home, "PATH=/usr/bin:/bin", "JUPYTER_RUNTIME_DIR=" + home + "/run", "PROJECT_NAME=bench"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: aclOwner, Gid: aclOwner}, Setpgid: true}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		return nil, nil, err
	}
	end := func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	limit := time.Now().Add(time.Minute)
	for {
		conn, err := dial(ctx, "", "")
		if err == nil {
			conn.Close()
			return &fileServer{http.Client{Transport: &http.Transport{DialContext: dial}}}, end, nil
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			end()
			return nil, nil, fmt.Errorf("%s does not answer: %w\n%s", argv[0], err, out.Bytes())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *fileServer) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Origin", "http://localhost")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if len(body) > 0 && body[0] == '{' {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %d %.300s", method, path, res.StatusCode, b)
	}
	return b, err
}

// upload is what the Workbench's page does.
func (s *fileServer) upload(ctx context.Context, name string, content []byte) error {
	begin, err := json.Marshal(map[string]any{"Root": "project", "Path": name, "Size": len(content), "Replace": true})
	if err != nil {
		return err
	}
	b, err := s.ask(ctx, "POST", "/workbench/api/uploads", begin)
	for err == nil {
		var u struct {
			ID     string `json:"id"`
			Offset int    `json:"offset"`
			Done   bool   `json:"done"`
		}
		if err = json.Unmarshal(b, &u); err != nil || u.Done {
			return err
		}
		b, err = s.ask(ctx, "PATCH", fmt.Sprintf("/workbench/api/uploads/%s?offset=%d", u.ID, u.Offset), content[u.Offset:min(u.Offset+filePiece, len(content))])
	}
	return err
}

// uploadAsJupyter is what Jupyter's page does: numbered pieces in base64.
func (s *fileServer) uploadAsJupyter(ctx context.Context, name string, content []byte) error {
	for n := 1; len(content) > 0; n++ {
		piece := content[:min(jupyterCut, len(content))]
		if content = content[len(piece):]; len(content) == 0 {
			n = -1
		}
		body, err := json.Marshal(map[string]any{"type": "file", "format": "base64", "chunk": n, "content": base64.StdEncoding.EncodeToString(piece)})
		if err == nil {
			_, err = s.ask(ctx, "PUT", "/api/contents/"+name, body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *fileServer) download(ctx context.Context, path string, want []byte) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || n != int64(len(want))) {
		err = fmt.Errorf("%s: %d with %d bytes", path, res.StatusCode, n)
	}
	return err
}

package test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// A Notebook is a person's Jupyter, reached through the whole chain.
type Notebook struct {
	b    *Browser
	Base *url.URL // …/notebook/ on the app origin
}

// OpenApp opens an app as its button does and waits until it answers itself.
func (b *Browser) OpenApp(ctx context.Context, project, app string) (*url.URL, error) {
	page, err := b.Submit(ctx, b.Portal+project+"/"+app, url.Values{})
	if err != nil {
		return nil, err
	}
	if page.Status >= 400 {
		return nil, fmt.Errorf("open %s: %s: %d %s", app, page.URL, page.Status, firstLine(page.Body))
	}
	// Wherever the frame put us, the app is below /APP/ of this origin.
	return page.URL.Parse("/" + app + "/")
}

// OpenNotebook opens Jupyter and waits until its API answers.
func (b *Browser) OpenNotebook(ctx context.Context, project string) (*Notebook, error) {
	base, err := b.OpenApp(ctx, project, "notebook")
	if err != nil {
		return nil, err
	}
	n := &Notebook{b: b, Base: base}
	for {
		err := n.Call(ctx, "GET", "api/status", nil, nil)
		if err == nil {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(25 * time.Millisecond): // asked again; a browser listens to one stream instead
		}
	}
}

// Call uses Jupyter's REST API as its own page does.
func (n *Notebook) Call(ctx context.Context, method, path string, in, out any) error {
	body := ""
	if in != nil {
		j, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = string(j)
	}
	u, err := n.Base.Parse(path)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(body))
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if xsrf := n.b.cookie(u.Host, "_xsrf"); xsrf != "" {
		req.Header.Set("X-XSRFToken", xsrf)
	}
	return n.b.JSON(req, out)
}

func (b *Browser) cookie(host, name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cookies[host][name]
}

// NewKernel starts a kernel for a notebook, as opening it does, and returns the
// kernel's ID.
func (n *Notebook) NewKernel(ctx context.Context) (string, error) {
	var s struct{ Kernel struct{ ID string } }
	err := n.Call(ctx, "POST", "api/sessions", map[string]any{
		"path": rand.Text() + ".ipynb", "name": "", "type": "notebook", "kernel": map[string]string{"name": "python3"},
	}, &s)
	return s.Kernel.ID, err
}

// A Kernel is a WebSocket to a kernel.
type Kernel struct {
	conn    *websocket.Conn
	session string
}

// Connect opens the kernel's WebSocket from a page of the app's own origin.
func (n *Notebook) Connect(ctx context.Context, kernel string) (*Kernel, error) {
	session := rand.Text()
	u, err := n.Base.Parse("api/kernels/" + kernel + "/channels?session_id=" + session)
	if err != nil {
		return nil, err
	}
	h := http.Header{"Origin": {u.Scheme + "://" + u.Host}, "Cookie": {n.b.Cookies(u.Host)}}
	return dialKernel(ctx, u, session, h, n.b.dial)
}

// ConnectDirect opens the WebSocket of a kernel on Jupyter's own socket, with
// nothing of ours between: the baseline of measurements.
func ConnectDirect(ctx context.Context, socket, base, kernel string) (*Kernel, error) {
	session := rand.Text()
	u := &url.URL{Host: "localhost", Path: base + "api/kernels/" + kernel + "/channels", RawQuery: "session_id=" + session}
	return dialKernel(ctx, u, session, http.Header{"Origin": {"http://localhost"}}, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
}

func dialKernel(ctx context.Context, u *url.URL, session string, h http.Header, dial func(context.Context, string, string) (net.Conn, error)) (*Kernel, error) {
	u.Scheme = "ws"
	conn, res, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPHeader: h, HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}}})
	if err != nil {
		if res != nil {
			err = fmt.Errorf("%w (%d)", err, res.StatusCode)
		}
		return nil, err
	}
	conn.SetReadLimit(16 << 20)
	return &Kernel{conn: conn, session: session}, nil
}

// Close closes the WebSocket; the kernel goes on.
func (k *Kernel) Close() { k.conn.CloseNow() }

// Run executes code and returns what it printed or evaluated to.
func (k *Kernel) Run(ctx context.Context, code string) (string, error) {
	id := rand.Text()
	msg, err := json.Marshal(map[string]any{
		"header":        map[string]any{"msg_id": id, "msg_type": "execute_request", "session": k.session, "username": "t", "version": "5.3"},
		"parent_header": map[string]any{}, "metadata": map[string]any{}, "channel": "shell", "buffers": []any{},
		"content": map[string]any{"code": code, "silent": false, "store_history": true, "user_expressions": map[string]any{}, "allow_stdin": false},
	})
	if err != nil {
		return "", err
	}
	if err := k.conn.Write(ctx, websocket.MessageText, msg); err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		_, b, err := k.conn.Read(ctx)
		if err != nil {
			return out.String(), err
		}
		var m struct {
			Header  struct{ Msg_type string }
			Parent  struct{ Msg_id string } `json:"parent_header"`
			Content struct {
				Text            string
				Execution_state string
				Ename, Evalue   string
				Data            map[string]any
			}
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return out.String(), err
		}
		if m.Parent.Msg_id != id {
			continue
		}
		switch m.Header.Msg_type {
		case "stream":
			out.WriteString(m.Content.Text)
		case "execute_result":
			fmt.Fprint(&out, m.Content.Data["text/plain"])
		case "error":
			return out.String(), fmt.Errorf("%s: %s", m.Content.Ename, m.Content.Evalue)
		case "status":
			if m.Content.Execution_state == "idle" {
				return strings.TrimSpace(out.String()), nil
			}
		}
	}
}

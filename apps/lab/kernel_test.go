package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"quire/apps/kernel"
)

// The test program is also the program that holds kernels.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "kernels" {
		os.Exit(kernel.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// withKernels ends what a test's kernels belong to.
func withKernels(t *testing.T, c *client) {
	t.Cleanup(func() {
		if h := c.server.kernels.current(); h != nil {
			if err := syscall.Kill(h.PID(), syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			for syscall.Kill(h.PID(), 0) == nil && alive(h.PID()) {
				runtime.Gosched()
			}
		}
	})
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

const testNotebook = `{"cells":[{"cell_type":"code","id":"one","metadata":{},"execution_count":null,"outputs":[],"source":"6*7"},` +
	`{"cell_type":"code","id":"two","metadata":{},"execution_count":null,"outputs":[],"source":""}],"metadata":{},"nbformat":4,"nbformat_minor":5}`

// session starts a notebook's kernel and returns its ID.
func (c *client) session(path string) string {
	c.t.Helper()
	s := c.ask(201, "POST", "api/sessions", object{"path": path, "name": path, "type": "notebook", "kernel": object{"name": "python3"}})
	return s["kernel"].(object)["id"].(string)
}

// A page is connected to a kernel.
type testPage struct {
	t     *testing.T
	ctx   context.Context
	conn  *websocket.Conn
	name  string
	v1    bool
	heard []kernel.Message
}

func (c *client) page(ctx context.Context, id, name string, v1 bool) *testPage {
	c.t.Helper()
	o := &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}}, HTTPHeader: http.Header{"Origin": {"http://app.test"}}}
	if v1 {
		o.Subprotocols = []string{protocolV1}
	}
	conn, _, err := websocket.Dial(ctx, "ws://app.test/p/lab/api/kernels/"+id+"/channels?session_id="+name, o)
	if err != nil {
		c.t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	if v1 != (conn.Subprotocol() == protocolV1) {
		c.t.Errorf("the protocol is %q", conn.Subprotocol())
	}
	p := &testPage{t: c.t, ctx: ctx, conn: conn, name: name, v1: v1}
	c.t.Cleanup(func() { conn.CloseNow() })
	return p
}

// run asks for a cell to be run and returns the request's ID.
func (p *testPage) run(cell, code string) string {
	p.t.Helper()
	m := kernel.NewMessage(kernel.Shell, "execute_request", p.name, kernel.Header{}, object{"code": code, "silent": false, "store_history": true, "allow_stdin": false, "stop_on_error": true})
	m.Metadata, _ = json.Marshal(object{"cellId": cell})
	kind, b := websocket.MessageBinary, m.Frame()
	if !p.v1 {
		kind, b = writeMessage(&m)
	}
	if err := p.conn.Write(p.ctx, kind, b); err != nil {
		p.t.Fatal(err)
	}
	return m.Head().ID
}

// until reads until a message is as said.
func (p *testPage) until(what string, is func(m kernel.Message) bool) kernel.Message {
	p.t.Helper()
	for {
		kind, b, err := p.conn.Read(p.ctx)
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		var m kernel.Message
		if p.v1 {
			m, err = kernel.ParseMessage(b)
		} else if kind == websocket.MessageText {
			var old oldMessage
			err = json.Unmarshal(b, &old)
			m = kernel.Message{Channel: old.Channel, Header: old.Header, Parent: old.Parent, Metadata: old.Metadata, Content: old.Content}
		}
		if err != nil {
			p.t.Fatal(err)
		}
		p.heard = append(p.heard, m)
		if is(m) {
			return m
		}
	}
}

func (p *testPage) reply(request string) {
	p.t.Helper()
	reply, idle := false, false
	p.until("the reply", func(m kernel.Message) bool {
		if m.Cause().ID == request {
			reply = reply || m.Head().Type == "execute_reply"
			idle = idle || statusOf(&m) == kernel.Idle
		}
		return reply && idle
	})
}

func (p *testPage) printed(request string) string {
	out := ""
	for _, m := range p.heard {
		var c struct {
			Text string `json:"text"`
			Data struct {
				Text string `json:"text/plain"`
			} `json:"data"`
		}
		if m.Cause().ID == request && json.Unmarshal(m.Content, &c) == nil {
			out += c.Text + c.Data.Text
		}
	}
	return out
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Two pages at one kernel hear what it publishes; what is said to one of them is
// said to it alone, in either protocol.
func TestPagesShareAKernel(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	id := c.session("a.ipynb")
	if again := c.session("a.ipynb"); again != id {
		t.Errorf("a second page has kernel %s, not %s", again, id)
	}
	one, two := c.page(ctx, id, "one", true), c.page(ctx, id, "two", false)
	r := one.run("one", "print('hello'); 6*7")
	one.reply(r)
	if got := one.printed(r); got != "hello\n42" {
		t.Errorf("%q", got)
	}
	two.until("the end of what it did not ask", func(m kernel.Message) bool { return m.Cause().ID == r && statusOf(&m) == kernel.Idle })
	if got := two.printed(r); got != "hello\n42" {
		t.Errorf("the other page: %q", got)
	}
	r2 := two.run("", "1+1")
	two.reply(r2)
	for _, m := range two.heard {
		if m.Channel != kernel.IOPub && m.Cause().ID == r {
			t.Errorf("the other page was told %s", m.Header)
		}
	}
	if got := c.ask(200, "GET", "api/kernels/"+id, nil); got["connections"] != 2.0 || got["execution_state"] != "idle" {
		t.Errorf("%v", got)
	}
	c.ask(204, "DELETE", "api/kernels/"+id, nil)
	if _, b := c.do("GET", "api/sessions", nil); strings.TrimSpace(string(b)) != "[]" {
		t.Errorf("sessions without a kernel: %s", b)
	}
}

// A page whose connection breaks hears on its return what it has not heard, once
// and in order.
func TestPageComesBack(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	id := c.session("a.ipynb")
	p := c.page(ctx, id, "one", true)
	r := p.run("one", "import time\nfor i in range(300):\n  print(i, flush=True)\n  time.sleep(.002)")
	p.until("some of it", func(m kernel.Message) bool { return strings.Contains(p.printed(r), "100\n") })
	p.conn.CloseNow()
	back := c.page(ctx, id, "one", true)
	back.reply(r)
	seen := map[string]bool{}
	all := p.printed(r)
	for _, m := range p.heard {
		seen[m.Head().ID] = true
	}
	again := 0
	for _, m := range back.heard {
		if seen[m.Head().ID] { // what had arrived, and we had not heard so
			again++
			continue
		}
		var s struct {
			Text string `json:"text"`
		}
		if m.Cause().ID == r && json.Unmarshal(m.Content, &s) == nil {
			all += s.Text
		}
	}
	want := ""
	for i := range 300 {
		want += fmt.Sprintln(i)
	}
	if all != want {
		t.Errorf("%q", all)
	}
}

// Whoever closes the page finds everything in the notebook later.
func TestCellsEndWithoutAPage(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	id := c.session("a.ipynb")
	p := c.page(ctx, id, "one", true)
	gate := c.project + "/gate"
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	r1 := p.run("one", "open('gate').read(); print('late'); 6*7")
	p.run("two", "print('and')\nprint('more')\n1/0")
	p.until("the first runs", func(m kernel.Message) bool { return m.Cause().ID == r1 && m.Head().Type == "execute_input" })
	p.conn.Close(websocket.StatusGoingAway, "")
	f, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var nb *notebook
	for ctx.Err() == nil {
		if nb, err = readNotebook([]byte(c.read("a.ipynb"))); err != nil {
			t.Fatal(err)
		}
		if len(outputs(nb.cell("two"))) == 2 {
			break
		}
		runtime.Gosched()
	}
	one, two := outputs(nb.cell("one")), outputs(nb.cell("two"))
	if len(one) != 2 || one[0]["text"] != "late\n" || one[1]["data"].(object)["text/plain"] != "42" || number(nb.cell("one")["execution_count"]) != 1 {
		t.Errorf("the first cell: %v", one)
	}
	if len(two) != 2 || two[0]["text"] != "and\nmore\n" || two[1]["ename"] != "ZeroDivisionError" || number(nb.cell("two")["execution_count"]) != 2 {
		t.Errorf("the second: %v", two)
	}
}

// A server that takes over has the kernels, who has which, and what was said
// meanwhile; a cell that ran is written although nobody comes back.
func TestKernelsOutliveTheServer(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	id := c.session("a.ipynb")
	p := c.page(ctx, id, "one", true)
	r := p.run("one", "kept = 21; 'before'")
	p.reply(r)
	if err := syscall.Mkfifo(c.project+"/gate", 0o600); err != nil {
		t.Fatal(err)
	}
	r = p.run("two", "open('gate').read(); print('meanwhile'); kept * 2")
	p.until("it runs", func(m kernel.Message) bool { return m.Cause().ID == r && m.Head().Type == "execute_input" })

	// As after kill -9: nothing is said to anybody.
	old := c.server
	old.kernels.close()
	f, err := os.OpenFile(c.project+"/gate", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	next := newClient(t, func(conf *config) { *conf = old.config })
	next.project, next.home = c.project, c.home
	if err := next.server.kernels.adopt(ctx); err != nil {
		t.Fatal(err)
	}
	c.server = next.server // for the end
	if got := next.session("a.ipynb"); got != id {
		t.Errorf("the notebook has kernel %s, not %s", got, id)
	}
	back := next.page(ctx, id, "one", true)
	back.reply(r)
	if got := back.printed(r); got != "meanwhile\n42" {
		t.Errorf("%q", got)
	}
	r = back.run("one", "kept")
	back.reply(r)
	if got := back.printed(r); got != "21" {
		t.Errorf("%q", got)
	}
}

// Kernels of other languages are started by their descriptions alone.
func TestKernelOfR(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	specs := c.ask(200, "GET", "api/kernelspecs", nil)
	if specs["default"] != "python3" || specs["kernelspecs"].(object)["ir"] == nil {
		t.Fatalf("%v", specs)
	}
	s := c.ask(201, "POST", "api/sessions", object{"path": "a.ipynb", "type": "notebook", "kernel": object{"name": "ir"}})
	p := c.page(ctx, s["kernel"].(object)["id"].(string), "one", true)
	r := p.run("one", "cat(6*7)")
	p.reply(r)
	if got := p.printed(r); got != "42" {
		t.Errorf("%q", got)
	}
	r = p.run("two", "plot(1:3)")
	p.reply(r)
	for _, m := range p.heard {
		if m.Cause().ID == r && m.Head().Type == "display_data" && strings.Contains(string(m.Content), `"image/png"`) {
			return
		}
	}
	t.Error("no plot")
}

// What a page sends that is no message for a kernel harms nobody: it is left out,
// and the next one is passed on.
func TestPagesThatLie(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	id := c.session("a.ipynb")
	good := kernel.NewMessage(kernel.Shell, "execute_request", "x", kernel.Header{}, object{"code": "1"})
	lie := func(change func(m *kernel.Message)) []byte {
		m := kernel.Message{Channel: good.Channel, Header: good.Header, Parent: good.Parent, Metadata: good.Metadata, Content: good.Content}
		change(&m)
		return m.Frame()
	}
	for name, b := range map[string][]byte{
		"nothing":   {},
		"text":      []byte("hello"),
		"offsets":   []byte(strings.Repeat("\xff", 4096)),
		"published": lie(func(m *kernel.Message) { m.Channel = kernel.IOPub }),
		"no JSON":   lie(func(m *kernel.Message) { m.Content = []byte("{") }),
		"header":    lie(func(m *kernel.Message) { m.Header = []byte("[]") }),
		"deep":      lie(func(m *kernel.Message) { m.Metadata = []byte(strings.Repeat("[", 1<<20)) }),
		"buffers":   lie(func(m *kernel.Message) { m.Buffers = make([][]byte, 10000) }),
		"other's session": lie(func(m *kernel.Message) {
			m.Header = []byte(`{"msg_id":"q","msg_type":"comm_info_request","session":"two"}`)
		}),
		"metadata":         lie(func(m *kernel.Message) { m.Metadata = []byte(`{"cellId":7}`) }),
		"numbers of cells": lie(func(m *kernel.Message) { m.Metadata = []byte(`{"cellId":"` + strings.Repeat("x", 1<<20) + `"}`) }),
	} {
		p := c.page(ctx, id, "one", true)
		if err := p.conn.Write(ctx, websocket.MessageBinary, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r := p.run("one", "40+2")
		p.reply(r)
		if got := p.printed(r); got != "42" {
			t.Errorf("after %s: %q", name, got)
		}
		p.conn.CloseNow()
	}
	for path, status := range map[string]int{"api/kernels/none/channels": 404, "api/kernels/" + id + "/channels?session_id=" + strings.Repeat("x", 200): 400} {
		if answer, _ := c.do("GET", path, nil); answer.StatusCode != status {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	for _, header := range [][2]string{{"Origin", "http://other.test"}, {"Sec-Fetch-Site", "same-site"}} {
		if answer, _ := c.do("GET", "api/kernels/"+id+"/channels", nil, header[0], header[1], "Upgrade", "websocket", "Connection", "Upgrade"); answer.StatusCode != 403 {
			t.Errorf("%v: %d", header, answer.StatusCode)
		}
	}
}

// More output than anybody takes: this process and the kernels' keep their bounds,
// and what is left out says so.
func TestOutputFasterThanAnybody(t *testing.T) {
	c := newClient(t)
	withKernels(t, c)
	c.write("a.ipynb", testNotebook)
	ctx := within(t)
	id := c.session("a.ipynb")
	p := c.page(ctx, id, "one", true)
	r := p.run("one", "import sys\nfor i in range(90):\n  sys.stdout.write('x' * 1_000_000); sys.stdout.flush()\n'done'")
	p.until("it runs", func(m kernel.Message) bool { return m.Cause().ID == r && m.Head().Type == "execute_input" })
	k, err := c.server.kernels.find(id)
	if err != nil {
		t.Fatal(err)
	}
	p.conn.CloseNow()
	for k.now().State != kernel.Idle && ctx.Err() == nil {
		k.mu.Lock()
		if k.bytes > ringBytes+2<<20 {
			t.Errorf("%d bytes are kept", k.bytes)
		}
		k.mu.Unlock()
		runtime.Gosched()
	}
	p = c.page(ctx, id, "one", true)
	p.reply(r)
	left := false
	for _, m := range p.heard {
		left = left || strings.Contains(string(m.Content), "left out here")
	}
	if got := p.printed(r); !left || !strings.HasSuffix(got, "'done'") {
		t.Errorf("%d bytes, marked: %v", len(got), left)
	}
}

// A notebook is run by a command: outputs are in the file, a cell that fails or
// does not end is an error, and no kernel is left.
func TestRunANotebook(t *testing.T) {
	ctx := within(t)
	dir := t.TempDir()
	file := dir + "/a.ipynb"
	code := func(id, source string) object {
		return object{"cell_type": "code", "id": id, "metadata": object{}, "execution_count": nil, "outputs": []any{}, "source": source}
	}
	b, err := json.Marshal(object{"cells": []any{code("one", "print('hi'); kept = 42"), code("two", "1/0"), code("three", "import time; time.sleep(600)"), code("four", "kept")}, "metadata": object{}, "nbformat": 4, "nbformat_minor": 5})
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	said := func() (out [4]string) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		nb, err := readNotebook(b)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range []string{"one", "two", "three", "four"} {
			for _, o := range outputs(nb.cell(id)) {
				data, _ := o["data"].(object)
				out[i] += fmt.Sprintf("%v%v%v", o["text"], o["ename"], data["text/plain"])
			}
		}
		return out
	}
	t.Setenv("HOME", dir)
	if err := (Run{Path: file, Out: io.Discard}).Do(ctx); err == nil || !strings.Contains(err.Error(), "Cell 2 of 4 failed: ZeroDivisionError") {
		t.Errorf("%v", err)
	}
	if got := said(); got[0] != "hi\n<nil><nil>" || got[1] != "<nil>ZeroDivisionError<nil>" || got[3] != "" {
		t.Errorf("%q", got)
	}
	if err := (Run{Path: file, Out: io.Discard, On: true, Limit: 4 * time.Second}).Do(ctx); err == nil || !strings.Contains(err.Error(), "2 of 4 cells failed") {
		t.Errorf("%v", err)
	}
	if got := said(); got[2] != "<nil>KeyboardInterrupt<nil>" || got[3] != "<nil><nil>42" {
		t.Errorf("%q", got)
	}
	if err := (Run{Path: file, Out: io.Discard, Kernel: "none"}).Do(ctx); err == nil || !strings.Contains(err.Error(), "no kernel named none") {
		t.Errorf("%v", err)
	}
}

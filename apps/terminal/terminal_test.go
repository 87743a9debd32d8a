package terminal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"quire/apps"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
)

func TestShellRunsInTheProject(t *testing.T) {
	w := newWorld(t)
	l := w.link()
	if len(l.tabs) != 1 || l.tabs[0].Name != "Shell 1" {
		t.Fatalf("a new page finds %+v, want one shell", l.tabs)
	}
	p := w.visit(l.tabs[0].ID, -1)
	p.enter("echo \"<$TERM $PWD $((6*7))>\"; test -t 0 && echo tty-$((1+1)); echo </dev/tty >/dev/tty ctty-$((2+2))\n")
	p.awaitText("<xterm-256color " + w.dir + " 42>")
	p.awaitText("tty-2")
	p.awaitText("ctty-4")
}

// A tab of Workbench shows a shell of its own: the page opens that, and no first
// one for itself; which shells there are can be asked.
func TestPageForOneShellFindsNoneMade(t *testing.T) {
	w := newWorld(t)
	l := &pageLink{t: t, conn: w.mustDial("?one=")}
	l.until("the first list", func() bool { return l.boot != "" })
	if len(l.tabs) != 0 {
		t.Errorf("a page for one shell finds %+v", l.tabs)
	}
	a := l.ask(command{Do: "open"})
	l.until("the new shell", func() bool { return len(l.tabs) == 1 })
	var tabs []tab
	if err := json.NewDecoder(w.get("/p/terminal/shells").Body).Decode(&tabs); err != nil {
		t.Fatal(err)
	}
	if len(tabs) != 1 || tabs[0].ID != a.Shell || tabs[0].Name != "Shell 1" {
		t.Errorf("the shells are %+v, want the one that was opened, %s", tabs, a.Shell)
	}
	if l := w.link(); len(l.tabs) != 1 {
		t.Errorf("an ordinary page finds %+v, want the same shell", l.tabs)
	}
}

func TestReturningPageGetsOnlyTheRest(t *testing.T) {
	w := newWorld(t)
	id := w.link().tabs[0].ID
	first := w.visit(id, -1)
	first.enter("echo one-$((1))\n")
	first.awaitText("one-1")
	has := first.end()
	before := first.output()
	first.leave()

	other := w.visit(id, -1)
	other.enter("echo two-$((2))\n")
	other.awaitText("two-2\r\n$ ")
	whole := other.output()

	back := w.visit(id, has)
	back.awaitText("two-2\r\n$ ")
	if got := back.output(); before+got != whole {
		t.Errorf("had %q, was sent %q, the whole is %q", before, got, whole)
	}
	b := back.begins[0]
	if b.At != has || b.Fresh || b.Lost != 0 || b.Live < has {
		t.Errorf("the rest begins with %+v, want at %d", b, has)
	}
	// A page of another life, with an offset that never was, starts over.
	strange := w.visit(id, 1<<40)
	strange.awaitText("two-2")
	if b := strange.begins[0]; !b.Fresh || b.At != 0 {
		t.Errorf("a strange offset begins with %+v", b)
	}
}

func TestScrollbackIsBounded(t *testing.T) {
	w := newWorld(t)
	id := w.link().tabs[0].ID
	p := w.visit(id, -1)
	p.enter("seq 1 700000; printf '\\e[?2004h\\e[?1049h'; echo done-$((1+1))\n") // 4.8 MB
	p.awaitText("done-2")
	s, err := w.desk.find(id)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	held, room := len(s.out.buf), cap(s.out.buf)
	s.mu.Unlock()
	if held > keptOutput*5/4 || room > keptOutput*2 {
		t.Errorf("%d bytes held in a buffer of %d", held, room)
	}
	late := w.visit(id, -1)
	late.awaitText("done-2")
	if n := len(late.output()); n > keptOutput*5/4 || n < keptOutput/2 {
		t.Errorf("a new page is sent %d bytes, want about %d", n, keptOutput)
	}
	if b := late.begins[0]; !b.Fresh || b.At == 0 || b.Restore == "" {
		t.Errorf("it begins with %+v, want a place in the middle with the modes there", b)
	}
	line, _, _ := strings.Cut(late.output(), "\r\n")
	if len(line) < 5 || strings.Trim(line, "0123456789") != "" {
		t.Errorf("the first line is cut: %q", line)
	}
}

func TestSlowPageDelaysNobody(t *testing.T) {
	w := newWorld(t)
	id := w.link().tabs[0].ID
	slow := w.lazyVisit(id, -1)
	fast := w.visit(id, -1)
	fast.enter("head -c 10000000 /dev/zero | tr '\\0' x | fold -w 99; echo done-$((1+1))\n")
	fast.awaitText("done-2")
	go slow.read()
	slow.awaitText("done-2")
	slow.mu.Lock()
	defer slow.mu.Unlock()
	lost := int64(0)
	for _, b := range slow.begins {
		lost += b.Lost
	}
	if len(slow.begins) < 2 || lost < 5_000_000 {
		t.Errorf("the slow page was told %+v; want that most was left out", slow.begins)
	}
	if len(slow.got) > keptOutput*5/4 {
		t.Errorf("the slow page was sent %d bytes after the gap", len(slow.got))
	}
}

func TestSizeIsTheOneOfWhoTypedLast(t *testing.T) {
	w := newWorld(t)
	id := w.link().tabs[0].ID
	size := func(p *pageShell, cols, rows int, drives bool) {
		t.Helper()
		p.await(fmt.Sprintf("%d×%d drives %v", cols, rows, drives), func() bool {
			return p.state.Cols == cols && p.state.Rows == rows && p.state.Drives == drives
		})
	}
	a := w.visit(id, -1)
	a.resize(100, 30, false)
	size(a, 100, 30, true)
	b := w.visit(id, -1)
	b.resize(60, 20, false)
	b.enter("stty size\n")
	b.awaitText("20 60")
	size(b, 60, 20, true)
	size(a, 60, 20, false)
	a.resize(90, 25, true) // he clicked into it
	size(b, 90, 25, false)
	a.leave()
	size(b, 60, 20, true)
}

func TestCloseEndsEveryProcess(t *testing.T) {
	w := newWorld(t)
	l := w.link()
	id := l.tabs[0].ID
	p := w.visit(id, -1)
	// A job in the background, a stopped one, one that stays, and one in front.
	background := p.number("bg", "sleep 3001 & echo; echo bg=$!")
	nohup := p.number("stay", "nohup sleep 3002 >/dev/null 2>&1 & echo; echo stay=$!")
	t.Cleanup(func() { syscall.Kill(nohup, syscall.SIGKILL) })
	// Stopped once it is sleep: between fork and exec it would still have the
	// shell's own handler for a hang-up, and lose the signal.
	stopped := p.number("stop", "sleep 3003 & until [ $(cat /proc/$!/comm) = sleep ]; do :; done; kill -STOP $!; echo; echo stop=$!")
	shell := p.number("me", "echo; echo me=$$")
	p.enter("sh -c 'echo; echo front=$$; exec sleep 3004'\n")
	front := 0
	p.await("front", func() bool {
		_, after, _ := strings.Cut(string(p.got), "\nfront=")
		_, err := fmt.Sscanf(after, "%d\r\n", &front)
		return err == nil
	})
	var ends []func()
	for _, pid := range []int{background, stopped, shell, front} {
		ends = append(ends, ending(t, pid))
	}
	var asked answer
	// The name is sh until the exec; the question is about the program in front.
	if asked = l.ask(command{Do: "close", Shell: id}); asked.Busy == "" || asked.Error != nil {
		t.Fatalf("close of a busy shell says %+v, want the program", asked)
	}
	if a := l.ask(command{Do: "close", Shell: id, Sure: true}); a.Error != nil || a.Busy != "" {
		t.Fatal(a)
	}
	for _, end := range ends {
		end()
	}
	if err := syscall.Kill(nohup, 0); err != nil {
		t.Errorf("the nohup job is gone: %v", err)
	}
	if status := p.ends(); status != websocket.StatusNormalClosure {
		t.Errorf("the page's socket ended with %v", status)
	}
	// The desk stays empty: closing the last shell is not asking for a new one.
	l.until("the empty list", func() bool { return len(l.tabs) == 0 })
	if again := w.link(); len(again.tabs) != 0 {
		t.Errorf("a new page finds %+v", again.tabs)
	}
	if _, res, err := w.dial("?shell="+id+"&at=0", "http://apps.test"); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("a closed shell answers %v %v", res, err)
	}
}

// ending watches a process without polling; the function waits for its end.
func ending(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pid %d: %v", pid, err)
	}
	return func() {
		t.Helper()
		defer unix.Close(fd)
		deadline := time.Now().Add(patience)
		for {
			left := time.Until(deadline)
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
			if n == 1 {
				return
			}
			if err != unix.EINTR || left <= 0 {
				status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
				t.Fatalf("process %d does not end (%v)\n%s", pid, err, status)
			}
		}
	}
}

func TestStubbornShellIsKilled(t *testing.T) {
	w := newWorld(t)
	l := w.link()
	id := l.tabs[0].ID
	p := w.visit(id, -1)
	shell := p.number("me", "trap '' HUP TERM; echo; echo me=$$")
	end := ending(t, shell)
	if a := l.ask(command{Do: "close", Shell: id}); a.Error != nil || a.Busy != "" {
		t.Fatal(a)
	}
	end()
}

func TestEndedShellSaysHowAndStartsAgain(t *testing.T) {
	w := newWorld(t)
	l := w.link()
	id := l.tabs[0].ID
	p := w.visit(id, -1)
	if a := l.ask(command{Do: "restart", Shell: id}); a.Error == nil {
		t.Error("a running shell was started again")
	}
	p.enter("echo last-$((1)); exit 3\n")
	p.await("the exit code", func() bool { return p.state.Ended != nil && p.state.Ended.Code == 3 })
	if !strings.Contains(p.output(), "last-1") {
		t.Error("the last words are missing")
	}
	l.until("the list with the end", func() bool { return l.tabs[0].Ended != nil })
	p.enter("nobody hears this\n")
	p.resize(77, 22, true) // comes after it
	p.await("the resize", func() bool { return p.state.Cols == 77 })
	if a := l.ask(command{Do: "restart", Shell: id}); a.Error != nil {
		t.Fatal(a.Error)
	}
	p.await("a living shell", func() bool { return p.state.Ended == nil })
	p.enter("echo again-$((1+1)); kill -9 $$\n")
	p.awaitText("again-2")
	p.await("the signal", func() bool {
		return p.state.Ended != nil && p.state.Ended.Signal == "killed" && p.state.Ended.Code == 137
	})
	if out := p.output(); !strings.Contains(out, "last-1") || strings.Contains(out, "nobody") {
		t.Errorf("the scrollback is %q", out)
	}
}

func TestPasteOfTenMegabytesArrivesWhole(t *testing.T) {
	w := newWorld(t)
	p := w.visit(w.link().tabs[0].ID, -1)
	const size = 10 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	sum := sha256.Sum256(data)
	p.enter(fmt.Sprintf("stty raw -echo; echo ready-$((1)); head -c %d | sha256sum; stty sane\n", size))
	p.awaitText("ready-1")
	for len(data) > 0 {
		n := min(len(data), 16<<10)
		p.enter(string(data[:n]))
		data = data[n:]
	}
	p.awaitText(hex.EncodeToString(sum[:]))
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.notices) > 0 {
		t.Error(p.notices)
	}
}

func TestInterruptOvertakesAPasteNobodyReads(t *testing.T) {
	w := newWorld(t)
	p := w.visit(w.link().tabs[0].ID, -1)
	p.enter("stty -icanon -echo; echo ready-$((1)); sleep 3005; stty sane; echo after-$((1))\n")
	p.awaitText("ready-1")
	for range 64 {
		p.enter(strings.Repeat("echo pasted\n", 1<<10))
	}
	p.enter("\x03")
	p.enter("echo here-$((1+1))\n")
	p.awaitText("here-2")
	if n := strings.Count(p.output(), "\npasted"); n > 0 {
		t.Errorf("%d lines of the paste were run", n)
	}
}

func TestInputIsBounded(t *testing.T) {
	w := newWorld(t)
	p := w.visit(w.link().tabs[0].ID, -1)
	p.enter("stty -icanon -echo -isig; echo ready-$((1)); sleep 3006\n")
	p.awaitText("ready-1")
	for range maxInput/(32<<10) + 8 {
		p.enter(strings.Repeat("x", 32<<10))
	}
	p.await("a word that input was thrown away", func() bool { return len(p.notices) > 0 })
}

func TestHostileFrames(t *testing.T) {
	w := newWorld(t)
	id := w.link().tabs[0].ID
	text, binary := websocket.MessageText, websocket.MessageBinary
	for _, c := range []struct {
		name  string
		query string
		kind  websocket.MessageType
		data  string
		want  websocket.StatusCode
	}{
		{"64 MB of input", "?shell=" + id, binary, strings.Repeat("x", 64<<20), websocket.StatusMessageTooBig},
		{"64 MB of text", "", text, strings.Repeat("x", 64<<20), websocket.StatusMessageTooBig},
		{"text that is not UTF-8", "?shell=" + id, text, "{\"resize\":[80,\xff\xfe]}", websocket.StatusInvalidFramePayloadData},
		{"command that is not UTF-8", "", text, "\xc3\x28", websocket.StatusInvalidFramePayloadData},
		{"no JSON", "?shell=" + id, text, "ls -l", websocket.StatusPolicyViolation},
		{"unknown words", "?shell=" + id, text, `{"exec":"id"}`, websocket.StatusPolicyViolation},
		{"a size that is no number", "?shell=" + id, text, `{"resize":["80","24"]}`, websocket.StatusPolicyViolation},
		{"a size beyond all numbers", "?shell=" + id, text, `{"resize":[1e300,24]}`, websocket.StatusPolicyViolation},
		{"unknown command", "", text, `{"do":"run","tag":1}`, websocket.StatusPolicyViolation},
		{"bytes as a command", "", binary, `{"do":"open","tag":1}`, websocket.StatusPolicyViolation},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := w.mustDial(c.query)
			wrote := make(chan struct{})
			go func() { // it cannot all be sent
				defer close(wrote)
				_ = conn.Write(context.Background(), c.kind, []byte(c.data))
			}()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for {
				if _, _, err := conn.Read(ctx); err != nil {
					if got := websocket.CloseStatus(err); got != c.want {
						t.Errorf("closed with %v (%v), want %v", got, err, c.want)
					}
					break
				}
			}
			conn.CloseNow()
			<-wrote
		})
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 64<<20 {
		t.Errorf("%d MB of heap after it all", m.HeapAlloc>>20)
	}
	p := w.visit(id, -1)
	for _, c := range []struct{ cols, rows, wantCols, wantRows int }{
		{0, 0, 2, 1}, {65535, 65535, 1000, 500}, {-5, 1 << 40, 2, 500}, {80, 24, 80, 24},
	} {
		p.resize(c.cols, c.rows, true)
		p.await(fmt.Sprint("a size for ", c), func() bool { return p.state.Cols == c.wantCols && p.state.Rows == c.wantRows })
	}
	p.enter("stty size\n")
	p.awaitText("24 80")
}

// Escape sequences are the page's matter: nothing on this side acts on them.
func TestEscapeSequencesPassThroughUntouched(t *testing.T) {
	w := newWorld(t)
	l := w.link()
	p := w.visit(l.tabs[0].ID, -1)
	p.enter(`printf '\e]52;c;aGVsbG8=\a\e]0;\e[31mevil\xe2\x80\xae\a\eP$q"p\e\\\e[c\e[20t'; echo end-$((1))` + "\n")
	p.awaitText("\x1b]52;c;aGVsbG8=\x07")
	p.awaitText("\x1bP$q\"p\x1b\\\x1b[c\x1b[20t")
	p.awaitText("end-1")
	if now := w.link().tabs; now[0].Name != "Shell 1" {
		t.Errorf("a program renamed its shell to %q", now[0].Name)
	}
}

func TestOriginIsCheckedOnEveryUpgrade(t *testing.T) {
	w := newWorld(t)
	id := w.link().tabs[0].ID
	for _, query := range []string{"", "?shell=" + id} {
		for _, origins := range [][]string{
			nil, {"null"}, {""}, {"http://evil.test"}, {"http://apps.test.evil.test"}, {"http://evilapps.test"}, {"http://apps.test:81"},
			{"http://apps.test."}, {"HTTP://apps.test"}, {"http://APPS.test"}, {"ftp://apps.test"}, {"http://apps.test/"}, {"http://apps.test@evil.test"},
			{"http://user@apps.test"}, {"http://apps.test", "http://apps.test"}, {"http://apps.test http://evil.test"}, {"//apps.test"}, {"file://"},
		} {
			conn, res, err := w.dial(query, origins...)
			if err == nil {
				conn.CloseNow()
				t.Errorf("a page of %q was let in", origins)
			} else if res == nil || res.StatusCode != http.StatusForbidden {
				t.Errorf("a page of %q got %v, %v", origins, res, err)
			}
		}
		for _, origin := range []string{"http://apps.test", "https://apps.test"} {
			conn, _, err := w.dial(query, origin)
			if err != nil {
				t.Errorf("a page of %s was refused: %v", origin, err)
				continue
			}
			conn.CloseNow()
		}
	}
}

func TestDeskHasLimitsAndNames(t *testing.T) {
	w := newWorld(t)
	l := w.link()
	id := l.tabs[0].ID
	l.ask(command{Do: "rename", Shell: id, Name: " build\x1b]0;x\a \u202etxt.exe\n" + strings.Repeat("n", 99)})
	l.until("the new name", func() bool { return l.tabs[0].Name != "Shell 1" })
	if got := l.tabs[0].Name; !strings.HasPrefix(got, "build]0;x txt.exe nnn") || len([]rune(got)) > 40 {
		t.Errorf("the name is %q", got)
	}
	if a := l.ask(command{Do: "rename", Shell: id, Name: "\u200b\x00 "}); a.Error == nil {
		t.Error("a name that cannot be seen was taken")
	}
	if a := l.ask(command{Do: "rename", Shell: "nope", Name: "x"}); a.Error == nil {
		t.Error("a shell that is not there was renamed")
	}
	for range maxShells - 1 {
		if a := l.ask(command{Do: "open"}); a.Error != nil || a.Shell == "" {
			t.Fatalf("open says %+v", a)
		}
	}
	if a := l.ask(command{Do: "open"}); a.Error == nil {
		t.Error("there is no limit on shells")
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

func TestEndOfTheAppEndsItsShells(t *testing.T) {
	w := newWorld(t)
	p := w.visit(w.link().tabs[0].ID, -1)
	end := ending(t, p.number("me", "echo; echo me=$$"))
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	end()
	p.ends()
	if _, err := os.Lstat(w.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestPageAndItsHeaders(t *testing.T) {
	w := newWorld(t)
	res := w.get("/p/terminal/")
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	csp := res.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self';", "frame-ancestors 'self'", "base-uri 'none'"} {
		if !strings.Contains(csp, part) {
			t.Errorf("the policy %q lacks %q", csp, part)
		}
	}
	if res.StatusCode != 200 || !strings.Contains(string(body), `data-prefix="/p/terminal"`) || !strings.Contains(string(body), `src="/p/terminal/assets/`) {
		t.Errorf("the page is %d %.300s", res.StatusCode, body)
	}
	for _, inline := range []string{"<script>", " style=", "onclick", "onload"} {
		if strings.Contains(string(body), inline) {
			t.Errorf("the page has %s inline", inline)
		}
	}
	for path, want := range map[string]int{
		"/p/terminal": http.StatusTemporaryRedirect, "/p/terminal/alive": http.StatusNoContent, "/p/terminal/other": http.StatusNotFound,
		"/": http.StatusNotFound, "/assets/manifest.json": http.StatusNotFound, "/p/terminal/assets/../page.html": http.StatusTemporaryRedirect, "/p/terminal/assets/none.js": http.StatusNotFound,
		"/p/terminal/socket": http.StatusUpgradeRequired,
	} {
		if res := w.get(path); res.StatusCode != want && !(want == http.StatusTemporaryRedirect && res.StatusCode == http.StatusMovedPermanently) {
			t.Errorf("GET %s is %d, want %d", path, res.StatusCode, want)
		}
	}
	if at := w.get("/p/terminal").Header.Get("Location"); at != "/p/terminal/" && at != "terminal/" {
		t.Errorf("the redirect goes to %q", at)
	}
}

func TestHelpSaysWhySudoFails(t *testing.T) {
	for _, set := range []bool{false, true} {
		h, err := handler(newDesk(Command{}, slog.New(slog.DiscardHandler)), "", page{NoNewRoot: set, Shell: "bash"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		rec := newRecorder()
		h.ServeHTTP(rec, mustRequest(t, "http://apps.test/"))
		if got := strings.Contains(rec.body.String(), "no_new_privs"); got != set {
			t.Errorf("no_new_privs %v: the page says so: %v", set, got)
		}
	}
}

func TestSocketModeDoesNotDependOnTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		dir := t.TempDir()
		old := syscall.Umask(mask)
		l, err := apps.Listen(filepath.Join(dir, "s"))
		left := syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o660 || left != mask {
			t.Errorf("under umask %o the socket has %v and the umask became %o", mask, info.Mode(), left)
		}
		if _, err := apps.Listen(filepath.Join(dir, "s")); err == nil {
			t.Error("a socket in use was taken over")
		}
		l.Close()
	}
}

func TestSocketOfAKilledPredecessorIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	l, err := apps.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := apps.Listen(path); err == nil {
		t.Error("a file of somebody was taken for a socket")
	}
}

func TestArgumentsAndShells(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, args := range [][]string{
		{}, {"--socket", "/nowhere/at/all/s"}, {"--socket", "s", "word"}, {"--socket", "s", "--url-prefix", "terminal"},
		{"--socket", "s", "--url-prefix", "/../x"}, {"--socket", "s", "--url-prefix", "/{x}"}, {"--unknown"},
	} {
		if err := serve(t.Context(), args, io.Discard, log); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	for shell, want := range map[string]string{
		"/usr/sbin/nologin": "/bin/bash", "/bin/false": "/bin/bash", "/no/such/shell": "/bin/bash", "bash": "/bin/bash", "/bin/sh": "/bin/sh", "/etc/passwd": "/bin/bash",
	} {
		t.Setenv("SHELL", shell)
		if got := apps.LoginShell(t.Context()); got != want {
			t.Errorf("SHELL=%s gives %s, want %s", shell, got, want)
		}
	}
}

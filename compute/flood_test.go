package compute_test

import (
	"strings"
	"testing"
)

// P-09: bob takes as much as he can get of what a kernel has only so much of, and
// holds it. The others of his node work on, and his own programs are told no.
//
//fault:session a program takes all the files, terminals, watches and socket buffers it can get
//fault:seen it is told no; others of the node see nothing of it
//fault:lost nothing
//fault:repair stopping the app frees all
func TestFloods(t *testing.T) {
	w := separate(t)
	a, b := w.ready(w.alice(), "alice", "p"), w.ready(w.bob(), "bob", "p")
	mine, theirs := w.running(a), w.running(b)
	// Children do it, and hold what they have until they are ended.
	held := w.inside(b, theirs, `
hold = r"""
import errno, os, resource, socket, sys, ctypes
what, kept, said = sys.argv[1], [], "never"
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
libc = ctypes.CDLL(None, use_errno=True)
def call(n):
    if n < 0: raise OSError(ctypes.get_errno(), "")
    return n
def pair():
    x, y = socket.socketpair()
    x.setblocking(False)
    kept.extend((x, y))
    try:
        while True: x.send(b"x" * 65536)
    except BlockingIOError: pass
watches = None
def watch():
    global watches
    if watches is None: watches = call(libc.inotify_init())
    d = "/tmp/w%d" % len(kept); os.mkdir(d)
    call(libc.inotify_add_watch(watches, d.encode(), 0xfff)); kept.append(d)
do = {"files": lambda: kept.append(os.open("/dev/null", os.O_RDONLY)), "ptys": lambda: kept.extend(os.openpty()),
      "instances": lambda: kept.append(call(libc.inotify_init())), "watches": watch, "buffers": pair}[what]
try:
    while len(kept) < 200000: do()
except OSError as e: said = errno.errorcode.get(e.errno, str(e))
except MemoryError: said = "ENOMEM"
print(len(kept), said, flush=True)
sys.stdin.read()
"""
children = []
def flood(what):
    p = subprocess.Popen([sys.executable, "-c", hold, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children.append(p)
    return p.stdout.readline().strip() or p.stderr.read()[-300:] or "killed"
for what in ("files", "files", "ptys", "ptys", "watches", "instances", "buffers"):
    attempt(what + str(len(children)), lambda: flood(what))
`)
	for what, want := range map[string]string{"files0": "EMFILE", "files1": "EMFILE", "ptys2": "ENOSPC", "ptys3": "ENOSPC", "instances5": "EMFILE", "buffers6": "EMFILE"} {
		if !strings.HasSuffix(held[what], " "+want) {
			t.Errorf("%s: %s", what, held[what])
		}
	}
	if held["ptys2"] != "done: 512 ENOSPC" { // two ends each
		t.Errorf("one session has terminals without end: %s", held["ptys2"])
	}
	got := w.inside(a, mine, `
attempt("file", lambda: len(open("/etc/passwd").read()) > 0)
attempt("pty", lambda: len(os.openpty()))
libc = ctypes.CDLL(None, use_errno=True)
attempt("watch", lambda: libc.inotify_add_watch(libc.inotify_init(), b"/tmp", 0xfff))
def talk():
    x, y = socket.socketpair(); x.sendall(b"x" * 65536); return len(y.recv(65536)) > 0
attempt("socket", talk)
attempt("process", lambda: subprocess.run(["/bin/true"]).returncode)
`)
	for what, want := range map[string]string{"file": "done: True", "pty": "done: 2", "watch": "done: 1", "socket": "done: True", "process": "done: 0"} {
		if got[what] != want {
			t.Errorf("alice's %s: %s", what, got[what])
		}
	}
	if next := w.running(a); next == mine {
		t.Error("no other app was started")
	}
}

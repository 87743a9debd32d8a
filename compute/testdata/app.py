"""Apps for tests: app.py MODE …, where MODE says what goes on."""
import http.server, json, os, signal, socket, socketserver, subprocess, sys, threading, time

mode, rest = sys.argv[1], sys.argv[2:]


class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "-"

    def do_GET(self):
        body = answer(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):  # runs the body as a program of the session
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        p = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/")
        body = (p.stdout + p.stderr).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *a):
        pass


def answer(path):
    if path == "/environment":
        return json.dumps(dict(os.environ))
    if path == "/status":
        return open("/proc/self/status").read()
    if path == "/ids":
        return json.dumps({"res": os.getresuid() + os.getresgid(), "groups": os.getgroups(), "sid": os.getsid(0),
                           "pgid": os.getpgid(0), "pid": os.getpid(), "ppid": os.getppid(), "cwd": os.getcwd(),
                           "fds": {f: link(f) for f in os.listdir("/proc/self/fd")},
                           "tmp": os.listdir("/tmp"), "tty": tty(), "cgroup": open("/proc/self/cgroup").read(),
                           "limits": open("/proc/self/limits").read()})
    if path == "/become-root":
        out = []
        for f in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                f()
                out.append("done")
            except OSError as e:
                out.append(e.strerror)
        out.append(subprocess.run(["/usr/bin/su", "-c", "id -u", "root"], capture_output=True, text=True, input="").stdout)
        return json.dumps(out)
    if path == "/detach":  # a child that wants to outlive the session
        return str(detach())
    if path == "/eat":
        os.write(1, b"eating\n")
        pid = os.fork()
        hog = bytearray()
        while True:
            hog += bytes(8 << 20)
    if path.startswith("/connect?"):
        return connect(path.split("?")[1])
    if path.startswith("/read?"):
        try:
            return open(path.split("?")[1]).read(100)
        except OSError as e:
            return "refused: " + e.strerror
    if path.startswith("/kill?"):
        try:
            os.kill(int(path.split("?")[1]), 9)
            return "killed"
        except OSError as e:
            return "refused: " + e.strerror
    if path == "/close":
        threading.Thread(target=lambda: (server.socket.close(), time.sleep(1000))).start()
        server.socket.close()
        return "closed"
    if path == "/exit":
        os._exit(3)
    if path == "/segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path == "/touch":
        open("/tmp/mine", "w").write("x")
        open("/dev/shm/mine", "w").write("x")
        return "ok"
    return "hello from %d" % os.getuid()


def link(f):
    try:
        return os.readlink("/proc/self/fd/" + f)
    except OSError:
        return ""


def tty():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        return "has one"
    except OSError:
        return "none"


def detach():
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.environ.clear()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            for f in (0, 1, 2):
                os.close(f)
            os.execve("/usr/bin/python3", ["python3", "-c", "import signal,time\nsignal.signal(15,signal.SIG_IGN)\nwhile 1: time.sleep(100)"], {})
        os.write(w, b"%d" % pid)
        os._exit(0)
    os.close(w)
    os.wait()
    return int(os.read(r, 20))


def connect(path):
    try:
        if path.startswith("/"):
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
        else:
            host, port = path.split(":")
            s = socket.create_connection((host, int(port)), 2)
        return "connected"
    except OSError as e:
        return "refused: " + (e.strerror or str(e))


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        c, _ = self.socket.accept()
        return c, ("-", 0)


class TCP(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = daemon_threads = True


if mode == "unix":
    print("listening soon", flush=True)
    Unix(rest[0], Handler).serve_forever()
elif mode == "tcp":
    TCP(("127.0.0.1", int(rest[0])), Handler).serve_forever()
elif mode == "tcp-late":
    open(rest[1], "w").write(rest[0])
    while not os.path.exists(rest[2]):
        time.sleep(0.01)
    server = TCP(("127.0.0.1", int(rest[0])), Handler)
    server.serve_forever()
elif mode == "clock":  # says when it listens
    server = Unix(rest[0], Handler)
    print("listening at %.6f" % time.time(), flush=True)
    server.serve_forever()
elif mode == "exit":
    print("last words", flush=True)
    sys.exit(int(rest[1]))
elif mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Unix(rest[0], Handler).serve_forever()
elif mode == "silent":  # never listens
    time.sleep(1000)
elif mode == "late":
    while not os.path.exists(rest[1]):
        time.sleep(0.01)
    Unix(rest[0], Handler).serve_forever()
elif mode == "loud":
    s = Unix(rest[0], Handler)
    block = b"x" * 65535 + b"\n"
    for i in range(int(rest[1])):
        os.write(1, block)
    os.write(1, b"the end\n")
    s.serve_forever()

"""A number that all open pages share.

An example of a web app for Quire that listens on a TCP port. It shows the three
things such an app has to do:

  1. listen on 127.0.0.1 and the port it is given, on nothing else;
  2. serve everything below the path it is given, WebSockets included;
  3. accept WebSockets from its own pages only (tornado's default check).

There is no login: Quire lets in only the person whose session this is.
"""

import argparse
import json
import os

import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.template
import tornado.web
import tornado.websocket

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Counter {{ project }}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{{ prefix }}/counter.css">
<script type="module" src="{{ prefix }}/counter.js"></script>
</head>
<body data-socket="{{ prefix }}/socket">
<main>
<h1>Counter</h1>
<p>Open this page twice: every tab shows the same number.</p>
<output id="count" aria-live="polite">…</output>
<p><button type="button" data-add="-1" disabled>Subtract 1</button>
<button type="button" data-add="1" disabled>Add 1</button></p>
<p id="link" role="status">Connecting …</p>
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: light-dark(#fff, #16181d); color: light-dark(#1b1f26, #e6e8ec);
  font: 14px/20px system-ui, sans-serif; text-align: center; }
main { padding: 24px; }
h1 { margin: 0 0 8px; font-size: 20px; line-height: 28px; }
p { margin: 0 0 16px; color: light-dark(#59616e, #a3abb8); }
output { display: block; margin: 24px 0; font-size: 72px; line-height: 80px; font-variant-numeric: tabular-nums; }
button { min-height: 32px; margin: 0 4px; padding: 0 16px; border: 1px solid light-dark(#868d99, #7d8593); border-radius: 6px; background: none; color: light-dark(#1b1f26, #e6e8ec); font: inherit; cursor: pointer; }
button:disabled { opacity: 0.5; cursor: default; }
"""

SCRIPT = """
const count = document.getElementById("count");
const link = document.getElementById("link");
const buttons = document.querySelectorAll("button");
let socket;
let wait = 250;

function connect() {
  const url = new URL(document.body.dataset.socket, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.onmessage = (e) => {
    const now = JSON.parse(e.data);
    wait = 250;
    count.textContent = now.count;
    link.textContent = now.pages === 1 ? "\\u25cf Connected; one page is open." : `\\u25cf Connected; ${now.pages} pages are open.`;
    for (const b of buttons) b.disabled = false;
  };
  socket.onclose = () => {
    link.textContent = "\\u25b2 Connection lost; trying again.";
    for (const b of buttons) b.disabled = true;
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 10000);
  };
}

for (const b of buttons) b.onclick = () => socket.send(JSON.stringify({ add: Number(b.dataset.add) }));
connect();
"""

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


class Text(tornado.web.RequestHandler):
    """Serves one text."""

    def initialize(self, kind, text, **values):
        self.kind, self.text, self.values = kind, text, values

    def set_default_headers(self):
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")

    def get(self):
        self.set_header("Content-Type", self.kind + "; charset=utf-8")
        if self.values:
            self.write(tornado.template.Template(self.text).generate(**self.values))
        else:
            self.write(self.text)


class Count:
    """The number, and the pages that show it."""

    def __init__(self):
        self.number = 0
        self.pages = set()

    def tell(self):
        message = json.dumps({"count": self.number, "pages": len(self.pages)})
        for page in self.pages:
            page.write_message(message)


class Page(tornado.websocket.WebSocketHandler):
    """The socket of one open page. check_origin stays as tornado has it: the
    page must come from the host it talks to."""

    def initialize(self, count):
        self.count = count

    def open(self):
        self.count.pages.add(self)
        self.count.tell()

    def on_message(self, message):
        try:
            add = json.loads(message)["add"]
        except (ValueError, TypeError, KeyError):
            self.close(1008, "not a message of ours")
            return
        if add in (-1, 1):
            self.count.number += add
            self.count.tell()

    def on_close(self):
        self.count.pages.discard(self)
        self.count.tell()


def make_app(prefix):
    project = os.environ.get("PROJECT_NAME", "")
    return tornado.web.Application(
        [
            (prefix + "/?", Text, {"kind": "text/html", "text": PAGE, "prefix": prefix, "project": project}),
            (prefix + "/counter.js", Text, {"kind": "text/javascript", "text": SCRIPT}),
            (prefix + "/counter.css", Text, {"kind": "text/css", "text": STYLE}),
            (prefix + "/socket", Page, {"count": Count()}),
        ],
        websocket_ping_interval=30,
        websocket_max_message_size=1024,
    )


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    words.add_argument("--prefix", default="", help="path below which the app is seen")
    args = words.parse_args()
    server = tornado.httpserver.HTTPServer(make_app(args.prefix.rstrip("/")))
    server.add_sockets(tornado.netutil.bind_sockets(args.port, address="127.0.0.1"))
    tornado.ioloop.IOLoop.current().start()


if __name__ == "__main__":
    main()

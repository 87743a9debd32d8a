// The gateway's pages come alive: a message notices that it is outdated and
// becomes the app; the bar follows the app in the frame below it. Everything
// here also works, with a reload, when this never runs.

interface News {
  state: string;
  word: string;
  reason?: string;
  away?: boolean;
  until?: number; // ms; the portal is silent, and the app is reachable until then
}

// follow hears an app's state for as long as the page is looked at. Browsers
// allow few connections to one host, six without TLS, and the apps of a project
// share one: a page nobody sees gives its own back, or the seventh tab of a
// project would load for ever. The first thing a new stream says is the state as
// it is now, so nothing is missed. A stream that the gateway refuses (the right
// has ended) ends with refused.
function follow(address: string, hear: (news: News) => void, refused: () => void): void {
  let stream: EventSource | undefined;
  const close = (): void => {
    stream?.close();
    stream = undefined;
  };
  const look = (): void => {
    if (document.hidden) return close();
    if (stream) return;
    const fresh = new EventSource(address);
    stream = fresh;
    fresh.onmessage = (event) => hear(JSON.parse(String(event.data)) as News);
    fresh.onerror = () => {
      if (fresh.readyState !== EventSource.CLOSED) return;
      if (stream === fresh) stream = undefined; // who comes back may have signed in again
      refused();
    };
  };
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", look);
  look();
}

function message(main: HTMLElement): void {
  const address = main.dataset["events"];
  const kind = main.dataset["kind"];
  if (kind === "stale" && window.parent !== window) {
    const path = location.pathname.replace(/^\/~[^/]*/, "") + location.search;
    window.parent.postMessage({ quire: "renew", path }, "*");
  }
  if (!address) return;
  let first: string | undefined;
  follow(
    address,
    (news) => {
      const text = document.getElementById("text");
      if (kind === "starting" && news.state === "starting") {
        if (text && news.reason && text.textContent !== news.reason) text.textContent = news.reason;
        return;
      }
      first ??= news.state;
      if (news.state !== first || news.state === "running" || (kind === "starting" && news.state !== "starting")) location.reload();
    },
    () => setTimeout(() => location.reload(), 2000),
  );
}

function bar(header: HTMLElement): void {
  const app = document.getElementById("app") as HTMLIFrameElement;
  const copy = document.getElementById("copy") as HTMLAnchorElement;
  const hide = document.getElementById("hide") as HTMLAnchorElement;
  const show = document.getElementById("show") as HTMLButtonElement;
  const state = document.getElementById("state") as HTMLElement;
  const root = document.body.dataset["root"] ?? "";
  const shownApp = new URL(app.src).pathname.slice(root.length).split("/")[1] ?? "";
  const manage = document.body.dataset["manage"] ?? "";

  // Where the app is now: its address in the bar of the browser, so that a
  // reload comes back to it, and in what people copy.
  const place = (): void => {
    let path: string;
    let title: string;
    try {
      const at = app.contentWindow?.location;
      if (!at || at.origin !== location.origin || !at.pathname.startsWith(root + "/")) return;
      path = at.pathname.slice(root.length) + at.search;
      title = app.contentDocument?.title ?? "";
    } catch {
      return; // the app shows another site; where content is, it says so itself
    }
    if (!path.startsWith("/_quire/")) at(path, title);
  };
  const at = (path: string, title: string): void => {
    copy.href = manage + path;
    hide.href = root + path;
    if (title && document.title !== title) document.title = title;
    const own = `${location.pathname}?path=${encodeURIComponent(path)}`;
    if (location.pathname + location.search !== own) history.replaceState(null, "", own);
  };
  app.addEventListener("load", place);

  // Content has an origin of its own, which cannot be looked into: its page says
  // where it is, and asks for a new pass when its own is too old. What a page
  // says is only ever taken for an address within its own app.
  let renewed = 0;
  addEventListener("message", (event) => {
    if (event.source !== app.contentWindow) return;
    const said = event.data as { quire?: unknown; path?: unknown; title?: unknown } | null;
    if (typeof said?.path !== "string" || !/^\/[a-z][a-z0-9-]{0,31}(\/|$)/.test(said.path) || said.path.includes("//") || said.path.length > 4096) return;
    const path = said.path;
    if (path.split("/")[1] !== shownApp) return;
    if (said.quire === "place") at(path, typeof said.title === "string" ? said.title.slice(0, 200) : "");
    if (said.quire === "renew" && Date.now() - renewed > 10_000) {
      renewed = Date.now();
      app.src = root + path;
    }
  });
  setInterval(place, 1000); // pages that change their address without loading

  copy.addEventListener("click", (event) => {
    place();
    event.preventDefault();
    const done = (): void => {
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy link"), 2000);
    };
    if (!navigator.clipboard) {
      prompt("The address to share:", copy.href);
      return;
    }
    navigator.clipboard.writeText(copy.href).then(done, () => prompt("The address to share:", copy.href));
  });

  const shown = (on: boolean): void => {
    header.hidden = !on;
    show.hidden = on;
  };
  hide.addEventListener("click", (event) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    shown(false);
    app.focus();
  });
  show.addEventListener("click", () => {
    shown(true);
    hide.focus();
  });

  const address = header.dataset["events"];
  if (!address) return;
  let counting: ReturnType<typeof setInterval> | undefined;
  follow(
    address,
    (news) => {
      // The page below stays as it is when its app ends: what was typed there
      // and not saved can still be copied.
      const word = news.away ? "node away" : news.reason && news.state !== "running" ? `${news.word}: ${news.reason}` : news.word;
      clearInterval(counting);
      const count = (): void => {
        if (!news.until) {
          state.textContent = word;
          return;
        }
        const minutes = Math.ceil((news.until - Date.now()) / 60_000);
        state.textContent = `${word} · portal away, ` + (minutes > 0 ? `reachable for ${minutes} min` : "out of reach until it is back");
      };
      count();
      if (news.until) counting = setInterval(count, 5000);
      state.dataset["state"] = news.state;
      if (news.away) state.dataset["away"] = "";
      else delete state.dataset["away"];
    },
    () => {
      state.textContent = "signed out";
      state.dataset["state"] = "";
    },
  );
}

const main = document.querySelector<HTMLElement>("main[data-kind]");
if (main) message(main);
const header = document.getElementById("bar");
if (header) bar(header);

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal, type IDisposable } from "@xterm/xterm";
import type { Settings } from "./settings";
import { theme } from "./theme";
import { howItEnded, socketAddress, type ShellMessage } from "./wire";

const piece = 16 << 10; // bytes of input in one message
const ahead = 1 << 20; // bytes the socket may hold back
const reportEvery = 32 << 10; // bytes of output between two reports
const pasteLimit = 10 << 20; // bytes
const lastOSC52 = 100_000; // characters

export interface Host {
  prefix: string;
  settings: Settings;
  linkUp(): boolean;
  notice(sentence: string): void;
  titled(view: View): void;
  news(view: View): void;
  restart(view: View): void;
  close(view: View): void;
}

// visible drops what cannot be seen: a title must not reorder or hide text.
export function visible(text: string, length: number): string {
  return [...text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "")].slice(0, length).join("").trim();
}

// A View is the page's terminal for one shell.
export class View {
  readonly panel = document.createElement("section");
  title = "";
  private readonly screen = document.createElement("div");
  private readonly under = document.createElement("div");
  private readonly aside = document.createElement("div");
  private readonly term: Terminal;
  private readonly fitter = new FitAddon();
  readonly search = new SearchAddon();
  private readonly encoder = new TextEncoder();
  private socket: WebSocket | undefined;
  private opened = false;
  private received = -1; // offset after the last byte that came
  private shown = 0; // offset after the last byte on the screen
  private reported = 0;
  private live = 0; // output before it is history
  private drives = false;
  private ended = false;
  private size = { cols: 80, rows: 24 };
  private retry = 0;
  private failures = 0;
  private gone = false;
  private readonly queue: Uint8Array[] = [];
  private pumping = 0;

  constructor(readonly id: string, private readonly host: Host) {
    this.panel.className = "panel";
    this.panel.id = "panel-" + id;
    this.panel.hidden = true;
    this.panel.setAttribute("role", "tabpanel");
    this.panel.setAttribute("aria-labelledby", "tab-" + id);
    this.screen.className = "screen";
    this.under.className = "under";
    this.under.hidden = true;
    this.aside.className = "aside";
    this.aside.hidden = true;
    this.panel.append(this.screen, this.under, this.aside);
    const s = host.settings;
    this.term = new Terminal({
      allowProposedApi: true, // marks of the search
      convertEol: false, cursorBlink: false, scrollback: 20_000, minimumContrastRatio: 4.5, macOptionIsMeta: true, tabStopWidth: 8,
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"), fontSize: s.font, lineHeight: 1.2,
      screenReaderMode: s.reader, theme: theme(),
      linkHandler: { activate: (e, uri) => this.follow(e, uri), hover: (_, uri) => this.hint(uri), leave: () => this.hint("") },
    });
    this.term.loadAddon(this.fitter);
    this.term.loadAddon(this.search);
    this.term.loadAddon(new WebLinksAddon((e, uri) => this.follow(e, uri), { hover: (_, uri) => this.hint(uri), leave: () => this.hint("") }));
    this.term.onData((d) => this.send(this.encoder.encode(d)));
    this.term.onBinary((d) => this.send(Uint8Array.from(d, (c) => c.charCodeAt(0) & 255)));
    this.term.onTitleChange((t) => {
      this.title = visible(t, 80);
      host.titled(this);
    });
    this.answerQuietly();
    this.panel.addEventListener("paste", (e) => this.paste(e), true);
    this.panel.addEventListener("focusin", () => this.claim());
    new ResizeObserver(() => this.fit()).observe(this.screen);
  }

  // show opens the terminal on first use and joins its shell.
  show(): void {
    this.panel.hidden = false;
    if (!this.opened) {
      this.opened = true;
      this.term.open(this.screen);
      this.connect();
    }
    this.fit();
  }

  hide(): void {
    this.panel.hidden = true;
  }

  focus(): void {
    this.term.focus();
  }

  // adopt takes over changed settings and the theme.
  adopt(s: Settings): void {
    this.term.options.fontSize = s.font;
    this.term.options.screenReaderMode = s.reader;
    this.term.options.theme = theme();
    this.fit();
  }

  selection(): string {
    return this.term.getSelection();
  }

  // revive takes keys again at once; the shell runs before its output says so.
  revive(): void {
    this.setEnded("");
    this.focus();
  }

  // remove forgets the view; its shell is gone.
  remove(): void {
    this.gone = true;
    clearTimeout(this.retry);
    clearTimeout(this.pumping);
    this.socket?.close();
    this.panel.remove();
    this.term.dispose();
  }

  // connect joins the shell, at the place where the page's output ends.
  connect(): void {
    clearTimeout(this.retry);
    if (!this.opened || this.gone || this.socket || !this.host.linkUp()) return;
    const socket = new WebSocket(socketAddress(this.host.prefix, { shell: this.id, at: String(this.received) }));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.fit(true);
    socket.onmessage = (e) => {
      this.failures = 0;
      if (typeof e.data === "string") this.take(JSON.parse(e.data) as ShellMessage);
      else this.write(new Uint8Array(e.data as ArrayBuffer));
    };
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.socket = undefined;
      this.queue.length = 0; // what was typed must not arrive minutes later
      if (this.gone) return;
      this.retry = setTimeout(() => this.connect(), Math.min(10_000, 250 * 2 ** this.failures++));
    };
  }

  // hangUp ends the socket; the link has said that the other side is away.
  hangUp(): void {
    const socket = this.socket;
    this.socket = undefined;
    socket?.close();
    this.queue.length = 0;
  }

  private take(m: ShellMessage): void {
    if (m.begin) {
      const b = m.begin;
      if (b.fresh) this.term.reset();
      if (b.lost) this.term.write(`\x18\x1b[0m\r\n\x1b[2m── ${inWords(b.lost)} of output left out: it came faster than this page could show it ──\x1b[0m\r\n`);
      if (b.restore) this.term.write(b.restore);
      this.received = b.at;
      this.live = b.live;
      this.term.write("", () => {
        this.shown = b.at;
        this.reported = b.at;
      });
    }
    if (m.state) {
      const s = m.state;
      this.size = { cols: s.cols, rows: s.rows };
      this.drives = s.drives;
      this.resizeTo(this.size);
      this.setEnded(s.ended ? howItEnded(s.ended) : "");
      this.explain();
    }
    if (m.notice) this.host.notice(m.notice);
  }

  private write(bytes: Uint8Array): void {
    const from = this.received;
    this.received += bytes.length;
    if (this.panel.hidden) this.host.news(this);
    // Cut where history ends, so that the parser's answers know which is which.
    const old = Math.min(Math.max(this.live - from, 0), bytes.length);
    if (old > 0 && old < bytes.length) this.term.write(bytes.subarray(0, old), () => this.done(from + old));
    const rest = old < bytes.length ? bytes.subarray(old) : bytes;
    this.term.write(rest, () => this.done(from + bytes.length));
  }

  private done(offset: number): void {
    this.shown = offset;
    if (offset - this.reported >= reportEvery || offset === this.received) {
      this.reported = offset;
      this.tell({ shown: offset });
    }
  }

  private tell(report: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(report));
  }

  // send queues input in pieces, and no faster than the network takes it.
  private send(bytes: Uint8Array): void {
    if (this.ended || this.socket?.readyState !== WebSocket.OPEN) return;
    for (let i = 0; i < bytes.length; i += piece) this.queue.push(bytes.subarray(i, i + piece));
    this.pump();
  }

  private pump(): void {
    clearTimeout(this.pumping);
    const socket = this.socket;
    if (socket?.readyState !== WebSocket.OPEN) return;
    while (this.queue.length > 0 && socket.bufferedAmount < ahead) socket.send(this.queue.shift()! as Uint8Array<ArrayBuffer>);
    if (this.queue.length > 0) this.pumping = setTimeout(() => this.pump(), 20);
  }

  // paste cleans what comes from the clipboard: control characters in it could
  // end a bracketed paste and run the rest as commands.
  private paste(e: ClipboardEvent): void {
    if (!(e.target instanceof Node) || !this.screen.contains(e.target)) return;
    e.preventDefault();
    e.stopPropagation();
    const text = (e.clipboardData?.getData("text/plain") ?? "").replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, "");
    if (text.length > pasteLimit || this.encoder.encode(text).length > pasteLimit) {
      this.host.notice(`That is ${inWords(text.length)}, and a paste ends at 10 MB. Upload it as a file instead.`);
      return;
    }
    if (text) this.term.paste(text);
  }

  // fit makes the terminal as large as its place, if this page gives the size.
  private fit(claim = false): void {
    if (!this.opened || this.panel.hidden || this.screen.clientWidth < 20 || this.screen.clientHeight < 20) return;
    const want = this.fitter.proposeDimensions();
    if (!want || !Number.isFinite(want.cols) || !Number.isFinite(want.rows)) return;
    const here = claim && document.hasFocus() && this.panel.contains(document.activeElement);
    if (this.drives) this.resizeTo(want);
    this.tell({ resize: [want.cols, want.rows], claim: here || undefined });
  }

  private claim(): void {
    if (!this.drives) this.fit(true);
  }

  private resizeTo(size: { cols: number; rows: number }): void {
    if (this.term.cols !== size.cols || this.term.rows !== size.rows) this.term.resize(size.cols, size.rows);
  }

  private explain(): void {
    const want = this.opened && !this.panel.hidden ? this.fitter.proposeDimensions() : undefined;
    const foreign = !this.drives && !!want && (want.cols !== this.size.cols || want.rows !== this.size.rows);
    this.screen.classList.toggle("foreign", foreign);
    this.aside.hidden = !foreign;
    this.aside.textContent = foreign ? `Sized for another page (${this.size.cols} × ${this.size.rows}). Type here to use this one.` : "";
  }

  private hint(uri: string): void {
    if (!uri) return this.explain();
    this.aside.hidden = false;
    this.aside.textContent = `${navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl"}+click opens ${visible(uri, 120)}`;
  }

  private follow(e: MouseEvent, uri: string): void {
    if (!(e.ctrlKey || e.metaKey) || !/^https?:\/\//i.test(uri)) return;
    e.preventDefault();
    window.open(uri, "_blank", "noopener,noreferrer");
  }

  private setEnded(sentence: string): void {
    const ended = sentence !== "";
    if (ended === this.ended && this.under.firstChild?.textContent === sentence) return;
    this.ended = ended;
    const hadFocus = this.under.contains(document.activeElement);
    this.under.hidden = !ended;
    this.under.replaceChildren();
    if (ended) {
      const words = document.createElement("span");
      words.className = "words";
      words.setAttribute("role", "status");
      words.textContent = sentence;
      this.under.append(words, this.button("Start again", "button main", () => this.host.restart(this)), this.button("Close shell", "button", () => this.host.close(this)));
    } else if (hadFocus) {
      this.focus();
    }
    this.fit();
  }

  private button(text: string, kind: string, then: () => void): HTMLButtonElement {
    const b = document.createElement("button");
    b.type = "button";
    b.className = kind;
    b.textContent = text;
    b.addEventListener("click", then);
    return b;
  }

  // answerQuietly keeps this terminal from answering questions that are history
  // or that another page answers: the program asked once, and an answer nobody
  // waits for would appear as typed text.
  private answerQuietly(): void {
    const others = (): boolean => this.shown < this.live || !this.drives;
    const p = this.term.parser;
    const kept: IDisposable[] = [
      { final: "c" }, { prefix: ">", final: "c" }, { prefix: "=", final: "c" }, { final: "n" }, { prefix: "?", final: "n" },
      { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" }, { prefix: ">", final: "q" },
    ].map((id) => p.registerCsiHandler(id, others));
    kept.push(p.registerDcsHandler({ intermediates: "$", final: "q" }, others));
    kept.push(p.registerEscHandler({ final: "Z" }, others));
    for (const color of [4, 10, 11, 12]) kept.push(p.registerOscHandler(color, (d) => d.includes("?") && others()));
    kept.push(p.registerOscHandler(52, (d) => this.toClipboard(d)));
  }

  // A program may write the clipboard if the person allowed it, and never reads it.
  private toClipboard(data: string): boolean {
    const content = data.slice(data.indexOf(";") + 1);
    if (this.shown < this.live || content === "?" || content.length > lastOSC52) return true;
    if (!this.host.settings.clipboard) {
      this.host.notice("A program wanted to fill your clipboard and was refused. Settings can allow it.");
      return true;
    }
    try {
      const text = new TextDecoder().decode(Uint8Array.from(atob(content), (c) => c.charCodeAt(0)));
      void navigator.clipboard?.writeText(text).catch(() => this.host.notice("The browser did not let the program fill the clipboard."));
    } catch {
      // Not base64: nothing to copy.
    }
    return true;
  }
}

function inWords(bytes: number): string {
  return bytes < 1_000_000 ? `${Math.ceil(bytes / 1000)} KB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}

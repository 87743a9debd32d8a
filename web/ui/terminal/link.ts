import { socketAddress, type Answer, type Command, type LinkMessage, type Tab } from "./wire";

// What a person is told about the link.
export type LinkState =
  | { is: "joining" }
  | { is: "up" }
  | { is: "lost"; seconds: number }
  | { is: "refused"; why: "signed-out" | "stopped" };

const silence = 40_000; // ms; the server speaks every 15 s
const longest = 15_000; // ms between two attempts

// A Link is the page's connection to the terminal. It is told which shells there
// are, and comes back by itself.
export class Link {
  private socket: WebSocket | undefined;
  private up = false;
  private failures = 0;
  private tag = 0;
  private readonly waiting = new Map<number, (a: Answer) => void>();
  private timer = 0;
  private deadline = 0;
  private boot = "";

  constructor(
    private readonly prefix: string,
    private readonly one: boolean, // the page shows one shell, which it opens itself
    private readonly on: {
      state(s: LinkState): void;
      list(tabs: Tab[], fresh: boolean): void;
      trouble(sentence: string): void;
    },
  ) {
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.now();
    });
    this.join();
  }

  get isUp(): boolean {
    return this.up;
  }

  // now tries at once if the link is down.
  now(): void {
    if (this.up || this.socket) return;
    this.failures = Math.min(this.failures, 2);
    clearTimeout(this.timer);
    this.join();
  }

  // ask sends a command; the answer may carry an error.
  ask(command: Command): Promise<Answer> {
    const tag = ++this.tag;
    if (!this.up || !this.socket) {
      return Promise.resolve({ tag, error: { kind: "unavailable", message: "There is no connection to the terminal. Try again in a moment." } });
    }
    this.socket.send(JSON.stringify({ ...command, tag }));
    return new Promise((done) => this.waiting.set(tag, done));
  }

  private join(): void {
    const socket = new WebSocket(socketAddress(this.prefix, this.one ? { one: "" } : {}));
    this.socket = socket;
    this.listenUntil(silence / 2);
    socket.onmessage = (e) => {
      this.listenUntil(silence);
      this.take(JSON.parse(e.data as string) as LinkMessage);
    };
    socket.onclose = () => this.lost(socket);
  }

  private listenUntil(ms: number): void {
    clearTimeout(this.deadline);
    const socket = this.socket;
    this.deadline = setTimeout(() => {
      socket?.close();
      if (socket) this.lost(socket); // a dead peer never answers the close
    }, ms);
  }

  private take(m: LinkMessage): void {
    if (m.shells && m.boot) {
      const fresh = this.boot !== "" && this.boot !== m.boot;
      this.boot = m.boot;
      if (!this.up) {
        this.up = true;
        this.failures = 0;
        this.on.state({ is: "up" });
      }
      this.on.list(m.shells, fresh);
    }
    if (m.tag !== undefined) {
      const done = this.waiting.get(m.tag);
      this.waiting.delete(m.tag);
      if (done) done(m as Answer);
      else if (m.error) this.on.trouble(m.error.message);
    }
  }

  private lost(socket: WebSocket): void {
    if (this.socket !== socket) return;
    this.socket = undefined;
    this.up = false;
    clearTimeout(this.deadline);
    for (const [tag, done] of this.waiting) {
      done({ tag, error: { kind: "unavailable", message: "The connection was lost before the answer came. Try again." } });
    }
    this.waiting.clear();
    const wait = this.failures === 0 ? 200 : Math.min(longest, 500 * 2 ** this.failures) * (0.7 + 0.6 * Math.random());
    this.failures++;
    this.on.state({ is: "lost", seconds: Math.ceil(wait / 1000) });
    this.timer = setTimeout(() => this.join(), wait);
    if (this.failures > 1) void this.askWhy();
  }

  // A browser does not say why a socket failed; an ordinary request does.
  private async askWhy(): Promise<void> {
    try {
      const answer = await fetch(this.prefix + "/alive", { redirect: "manual", cache: "no-store" });
      if (this.up || answer.status === 204) return;
      const out = answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403;
      this.on.state({ is: "refused", why: out ? "signed-out" : "stopped" });
    } catch {
      // No network: the attempts go on.
    }
  }
}

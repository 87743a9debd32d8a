// Terminals as tabs: each is the page of the Terminal app in a frame, with one
// shell. The shells are the Terminal app's; a tab only shows one.

import { dialog, h } from "./dom";
import type { Action } from "./menu";
import type { Desk, Panel } from "./tabs";
import { type Place, siblings } from "./wire";

// terminalRoot is the root of places that are shells; roots of files have other names.
export const terminalRoot = "terminal";

interface Said {
  quire?: unknown;
  id?: unknown;
  name?: unknown;
  title?: unknown;
  ended?: unknown;
  gone?: unknown;
  does?: unknown;
}

export class Terminals {
  constructor(private readonly desk: Desk, private readonly shown: () => void) {
    addEventListener("message", (e) => {
      if (e.origin !== location.origin) return;
      const tab = this.all().find((s) => s.source !== null && s.source === e.source);
      if (tab) this.hear(tab, (e.data ?? {}) as Said);
    });
  }

  // open shows a shell in a tab; without an id it is a new one.
  open(id = "", focus = true, show = true, title = ""): void {
    const there = id ? this.all().find((s) => s.place.path === id) : undefined;
    if (there) {
      this.desk.select(there, focus);
    } else {
      this.desk.add(new Shell(id, title), focus, show);
    }
    if (focus) this.shown();
  }

  // choices are the shells that no tab shows, and the other ways to a terminal.
  async choices(): Promise<Action[]> {
    let shells: { id: string; name: string; ended?: unknown }[] = [];
    try {
      const answer = await fetch(siblings + "/terminal/shells", { cache: "no-store" });
      if (answer.ok) shells = await answer.json() as typeof shells;
    } catch {
      // Nothing answers, so no shell runs.
    }
    const here = new Set(this.all().map((s) => s.place.path));
    return [
      ...shells.filter((s) => !here.has(s.id)).map((s): Action => ({ label: s.ended ? `${s.name} (ended)` : s.name, icon: "terminal", do: () => this.open(s.id) })),
      { label: "New terminal", icon: "terminal", keys: "Ctrl Shift Enter", line: true, do: () => this.open() },
      { label: "All in a browser tab", icon: "outside", do: () => void window.open(siblings + "/terminal/", "_blank", "noopener") },
    ];
  }

  private all(): Shell[] {
    return this.desk.all().filter((p): p is Shell => p instanceof Shell);
  }

  private hear(tab: Shell, said: Said): void {
    if (said.quire === "shell" && typeof said.id === "string") {
      if (said.gone === true) {
        this.desk.drop(tab);
      } else {
        tab.adopt(said.id, String(said.name), String(said.title), said.ended === true);
        this.desk.retitle();
      }
    } else if (said.quire === "tabs") {
      switch (said.does) {
        case "open": this.open(); break;
        case "close": void this.desk.ask(tab); break;
        case "left": this.desk.step(tab, -1); break;
        case "right": this.desk.step(tab, 1); break;
        case "up": this.desk.toTab(tab); break;
      }
    }
  }
}

class Shell implements Panel {
  readonly as = "";
  readonly dirty = false;
  readonly panel = h("section", { class: "panel terminal", role: "tabpanel" });
  place: Place;
  title = "Terminal";
  hint = "Terminal";
  private known = false; // there is a shell
  private ended = false;
  private frame: HTMLIFrameElement | undefined;

  constructor(id: string, title: string) {
    if (title) this.title = this.hint = title;
    this.place = { root: terminalRoot, path: id };
  }

  get source(): Window | null {
    return this.frame?.contentWindow ?? null;
  }

  // adopt takes what the page says about its shell.
  adopt(id: string, name: string, title: string, ended: boolean): void {
    this.place = { root: terminalRoot, path: id };
    this.known = name !== "";
    this.ended = ended;
    this.title = name || "Terminal";
    this.hint = [name, title, ended ? "ended" : ""].filter(Boolean).join(" – ") || "Terminal";
    if (this.frame) this.frame.title = this.title;
  }

  show(): void {
    this.panel.hidden = false;
    if (this.frame) return;
    const frame = h("iframe", { title: this.title, src: `${siblings}/terminal/?shell=${encodeURIComponent(this.place.path)}` });
    frame.addEventListener("load", () => {
      // Where the Terminal is not running or the person is signed out, the page
      // leads to the portal: in a browser tab of its own, because files are open here.
      for (const a of this.message()?.querySelectorAll<HTMLAnchorElement>('a[target="_top"]') ?? []) {
        a.target = "_blank";
        a.rel = "noopener";
      }
    });
    this.frame = frame;
    this.panel.append(frame);
  }

  // hide lets go of a page that shows no terminal: it listens for one on a
  // connection, of which a browser has few, and another look asks again anyway.
  hide(): void {
    if (!this.frame || this.shows()) return;
    this.frame.remove();
    this.frame = undefined;
  }

  focus(): void {
    this.frame?.focus();
  }

  rename(): void {
    this.focus();
    this.source?.postMessage({ quire: "rename" }, location.origin);
  }

  async leave(): Promise<boolean> {
    if (!this.known || !this.shows()) return true;
    const how = this.ended ? "end" : await dialog(`Close ${this.title}?`,
      [h("p", {}, "If only the tab is closed, the shell goes on and keeps its output. The arrow beside “New terminal” brings it back.")],
      [{ label: "Cancel", value: "" }, { label: "End the shell", value: "end", kind: "danger" }, { label: "Close the tab", value: "tab", kind: "main" }]);
    // The tab goes when the shell has gone.
    if (how === "end") this.source?.postMessage({ quire: "end" }, location.origin);
    return how === "tab";
  }

  close(): void {
    this.panel.remove();
  }

  // message is the gateway's page in place of the Terminal's, if it is that.
  private message(): Element | null {
    try {
      return this.frame?.contentDocument?.querySelector("main[data-kind]") ?? null;
    } catch {
      return null;
    }
  }

  // shows reports whether the frame has the Terminal's page or is on the way to it.
  private shows(): boolean {
    return this.frame?.contentDocument != null && !this.message();
  }
}

// The tabs of what is open, and the panels that belong to them.

import { byId, h, icon } from "./dom";
import type { Editor } from "./editor";
import { key } from "./tree";
import { join, type Place } from "./wire";

export interface Panel {
  place: Place;
  as: string; // "text": as text although there is a better view
  title: string;
  hint?: string; // what more there is to say about a tab that shows no file
  readonly panel: HTMLElement;
  readonly dirty: boolean;
  editor?: Editor;
  show(): void;
  hide?(): void;
  focus(): void;
  rename?(): void;
  leave?(): Promise<boolean>; // asks whether the tab may go
  close(): void;
}

interface Tab {
  panel: Panel;
  button: HTMLButtonElement;
}

export class Desk {
  private tabs: Tab[] = [];
  private last = 0;
  current: Panel | undefined;

  constructor(private readonly on: { selected(p: Panel | undefined): void; closing(p: Panel): Promise<boolean>; changed(): void }) {}

  all(): Panel[] {
    return this.tabs.map((t) => t.panel);
  }

  find(place: Place, as: string): Panel | undefined {
    return this.all().find((p) => key(p.place) === key(place) && p.as === as);
  }

  // add makes a tab; later ones than the first may come without being shown.
  add(panel: Panel, focus: boolean, show = true): void {
    const id = "tab-" + ++this.last;
    panel.panel.id = "panel-" + this.last;
    panel.panel.setAttribute("aria-labelledby", id);
    const x = h("span", { class: "close", title: "Close", "aria-hidden": "true" }, icon("x")); // for the mouse; the keyboard has Delete
    const b = h("button", { type: "button", class: "tab", role: "tab", id, "aria-controls": panel.panel.id, "aria-selected": "false", tabindex: "-1" },
      h("span", { class: "mark" }), h("span", { class: "label" }), x);
    const tab = { panel, button: b };
    b.addEventListener("click", () => this.select(panel, true));
    b.addEventListener("auxclick", (e) => {
      if (e.button === 1) void this.close(tab);
    });
    x.addEventListener("click", (e) => {
      e.stopPropagation();
      void this.close(tab);
    });
    b.addEventListener("keydown", (e) => this.onKey(e, tab));
    this.tabs.push(tab);
    byId("tabs").append(b);
    byId("panels").append(panel.panel);
    panel.panel.hidden = true;
    if (show) this.select(panel, focus);
    else this.retitle();
  }

  select(panel: Panel, focus: boolean): void {
    this.current = panel;
    for (const t of this.tabs) {
      const on = t.panel === panel;
      t.button.setAttribute("aria-selected", String(on));
      t.button.tabIndex = on ? 0 : -1;
      if (on) {
        t.panel.show();
        this.reveal(panel);
      } else {
        t.panel.panel.hidden = true;
        t.panel.hide?.();
      }
    }
    this.retitle();
    if (focus) panel.focus();
  }

  // follow keeps tabs with files that were renamed or moved.
  follow(from: Place, to: Place): void {
    for (const { panel } of this.tabs) {
      if (panel.place.root !== from.root) continue;
      const rest = panel.place.path === from.path ? "" : panel.place.path.startsWith(from.path + "/") ? panel.place.path.slice(from.path.length + 1) : undefined;
      if (rest === undefined) continue;
      panel.place = { root: to.root, path: rest ? join(to.path, rest) : to.path };
      if (panel.editor) {
        panel.editor.place = panel.place;
        panel.title = panel.editor.name;
      }
    }
    this.retitle();
  }

  retitle(): void {
    byId("empty").hidden = this.tabs.length > 0;
    for (const { panel, button } of this.tabs) {
      button.querySelector(".label")!.textContent = panel.title;
      button.title = panel.hint ?? (panel.place.root ? decode(panel.place.path) + (panel.as ? " (as text)" : "") : panel.title);
      const mark = button.querySelector<HTMLElement>(".mark")!;
      mark.textContent = panel.dirty ? "●" : "";
      if (panel.dirty) {
        mark.setAttribute("role", "img");
        mark.setAttribute("aria-label", "not saved");
      } else {
        mark.removeAttribute("role");
        mark.removeAttribute("aria-label");
      }
    }
    this.on.selected(this.current);
    this.on.changed();
  }

  // step goes to the tab so many places to the right.
  step(panel: Panel, by: number): void {
    const i = this.tabs.findIndex((t) => t.panel === panel);
    this.select(this.tabs[(i + by + this.tabs.length) % this.tabs.length]!.panel, true);
  }

  // reveal scrolls a panel's tab into view.
  reveal(panel: Panel): void {
    this.tabs.find((t) => t.panel === panel)?.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // toTab puts the focus on a panel's tab.
  toTab(panel: Panel): void {
    this.tabs.find((t) => t.panel === panel)?.button.focus();
  }

  // ask closes a tab, unless the person wants to keep it.
  async ask(panel: Panel): Promise<void> {
    const tab = this.tabs.find((t) => t.panel === panel);
    if (tab) await this.close(tab);
  }

  private async close(tab: Tab): Promise<void> {
    if (await this.on.closing(tab.panel)) this.drop(tab.panel);
  }

  // drop removes a tab without asking.
  drop(panel: Panel): void {
    const i = this.tabs.findIndex((t) => t.panel === panel);
    const tab = this.tabs[i];
    if (!tab) return;
    this.tabs.splice(i, 1);
    tab.button.remove();
    tab.panel.close();
    tab.panel.panel.remove();
    if (this.current === tab.panel) {
      this.current = undefined;
      const next = this.tabs[Math.min(i, this.tabs.length - 1)];
      if (next) {
        this.select(next.panel, false);
        next.button.focus();
      } else byId("tree").focus();
    }
    this.retitle();
  }

  private onKey(e: KeyboardEvent, tab: Tab): void {
    const i = this.tabs.indexOf(tab);
    const go = (to: number): void => {
      const next = this.tabs[(to + this.tabs.length) % this.tabs.length]!;
      this.select(next.panel, false);
      next.button.focus();
    };
    switch (e.key) {
      case "ArrowRight": go(i + 1); break;
      case "ArrowLeft": go(i - 1); break;
      case "Home": go(0); break;
      case "End": go(this.tabs.length - 1); break;
      case "ArrowDown": tab.panel.focus(); break;
      case "Delete": void this.close(tab); break;
      case "F2": tab.panel.rename?.(); break;
      default: return;
    }
    e.preventDefault();
  }
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

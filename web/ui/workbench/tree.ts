// The list of files: a tree of which only the rows that can be seen exist as
// elements, so that a folder of ten thousand files is no different from one of
// ten. The focus stays on the list; aria-activedescendant says which row is meant.

import { ago, byId, fail, h, icon, say, size, visible } from "./dom";
import { type Entry, join, last, list, nameKey, parent, type Place, type Root } from "./wire";

export interface Item extends Place {
  name: string;
  entry: Entry;
  depth: number;
  top?: Root;
  open: boolean;
  loading: boolean;
  children?: Item[];
  all?: Item[]; // with those whose names begin with a dot
  up?: Item;
}

export interface Actions {
  open(item: Item): void;
  menu(x: number, y: number): void;
  rename(): void;
  remove(): void;
  copy(cut: boolean): void;
  paste(): void;
  drop(target: Item, data: DataTransfer): void;
}

const rowHeight = 28;
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const order = (a: Item, b: Item): number =>
  Number(b.entry.k === "dir") - Number(a.entry.k === "dir") || collator.compare(a.name, b.name) || (a.path < b.path ? -1 : 1);

export const key = (p: Place): string => p.root + ":" + p.path;

export class Tree {
  readonly at = byId("tree");
  private readonly rows = byId("rows");
  tops: Item[] = [];
  private flat: Item[] = [];
  active: Item | undefined;
  private anchor: Item | undefined;
  readonly selected = new Set<Item>();
  cut = new Set<string>();
  dotted: boolean;
  private typed = "";
  private typedAt = 0;
  private people: Record<string, string> = {};
  private painted = false;
  private pressed = false;

  constructor(private readonly actions: Actions) {
    this.dotted = remember("dotted") === "1";
    this.at.addEventListener("scroll", () => this.paint());
    new ResizeObserver(() => this.paint()).observe(this.at);
    this.at.addEventListener("keydown", (e) => this.onKey(e));
    this.at.addEventListener("focus", () => this.paint());
    this.at.addEventListener("blur", () => this.paint());
    this.at.addEventListener("click", (e) => this.onClick(e));
    // A row that is painted anew between press and release would get no click.
    this.rows.addEventListener("pointerdown", () => { this.pressed = true; });
    for (const end of ["pointerup", "pointercancel"]) {
      addEventListener(end, () => {
        if (!this.pressed) return;
        this.pressed = false;
        this.paint();
      });
    }
    this.at.addEventListener("dblclick", (e) => {
      const item = this.under(e);
      if (item && item.entry.k !== "dir") actions.open(item);
    });
    this.at.addEventListener("contextmenu", (e) => {
      e.preventDefault();
      const item = this.under(e);
      if (item && !this.selected.has(item)) this.choose(item);
      else if (item) this.active = item;
      if (e.detail === 0 && e.clientX === 0 && e.clientY === 0) this.menuAtRow();
      else actions.menu(e.clientX, e.clientY);
    });
    this.at.addEventListener("dragover", (e) => {
      if (!e.dataTransfer?.types.includes("Files")) return;
      e.preventDefault();
      e.stopPropagation();
      this.mark(this.folder(this.under(e as MouseEvent)));
    });
    this.at.addEventListener("dragleave", () => this.mark(undefined));
    this.at.addEventListener("drop", (e) => {
      if (!e.dataTransfer) return;
      e.preventDefault();
      e.stopPropagation();
      this.mark(undefined);
      actions.drop(this.folder(this.under(e as MouseEvent)), e.dataTransfer);
    });
  }

  setRoots(roots: Root[]): void {
    const before = new Map(this.tops.map((t) => [t.root, t]));
    this.tops = roots.map((r) => before.get(r.id) ?? {
      root: r.id, path: "", name: r.title, entry: { n: r.title, k: "dir", t: 0, m: 0, u: 0, g: 0 }, depth: 0, top: r, open: false, loading: false,
    });
    for (const t of this.tops) t.top = roots.find((r) => r.id === t.root)!;
    this.active ??= this.tops[0];
    this.build();
  }

  // folder is the directory that something made "here" belongs into.
  folder(item = this.active): Item {
    if (!item) return this.tops[0]!;
    return item.entry.k === "dir" ? item : item.up ?? this.tops[0]!;
  }

  // chosen are the items that an action is about, none inside of another.
  chosen(): Item[] {
    const all = this.selected.size ? [...this.selected] : this.active ? [this.active] : [];
    return all.filter((item) => {
      for (let up = item.up; up; up = up.up) if (this.selected.has(up)) return false;
      return true;
    });
  }

  async expand(item: Item): Promise<void> {
    item.open = true;
    this.keep();
    if (!item.children) await this.load(item);
    else this.build();
  }

  collapse(item: Item): void {
    item.open = false;
    this.keep();
    if (this.active && this.inside(this.active, item)) this.choose(item);
    this.build();
  }

  private inside(item: Item, top: Item): boolean {
    for (let up = item.up; up; up = up.up) if (up === top) return true;
    return false;
  }

  // load reads a directory and keeps what is known of the entries that stay.
  async load(item: Item): Promise<void> {
    item.loading = true;
    this.build();
    const before = new Map((item.all ?? []).map((c) => [c.path, c]));
    const found: Item[] = [];
    try {
      await list(item, (entries, people) => {
        Object.assign(this.people, people);
        for (const e of entries) {
          const path = join(item.path, nameKey(e));
          const old = before.get(path);
          if (old && old.entry.k === e.k) {
            old.entry = e;
            found.push(old);
          } else found.push({ root: item.root, path, name: e.n, entry: e, depth: item.depth + 1, up: item, open: false, loading: false });
        }
        item.all = found.slice().sort(order);
        this.filter(item);
        this.build();
      });
    } catch (e) {
      item.open = item.open && item.children !== undefined;
      throw e;
    } finally {
      item.loading = false;
      this.forget();
      this.build();
    }
  }

  private filter(item: Item): void {
    if (item.all) item.children = this.dotted ? item.all : item.all.filter((c) => !c.name.startsWith("."));
    for (const c of item.all ?? []) if (c.all) this.filter(c);
  }

  setDotted(on: boolean): void {
    this.dotted = on;
    keepWord("dotted", on ? "1" : "");
    for (const t of this.tops) this.filter(t);
    this.forget();
    this.build();
  }

  // forget drops items from the selection that are not there any more.
  private forget(): void {
    const here = (item: Item): boolean => item.up ? (item.up.children?.includes(item) ?? false) && here(item.up) : this.tops.includes(item);
    for (const item of this.selected) if (!here(item)) this.selected.delete(item);
    if (this.active && !here(this.active)) {
      let up = this.active.up;
      while (up && !here(up)) up = up.up;
      this.active = up ?? this.tops[0];
    }
  }

  // refresh reads again all directories that are open.
  async refresh(items: Item[] = this.tops): Promise<void> {
    for (const item of items) {
      if (!item.open) {
        delete item.children;
        delete item.all;
        continue;
      }
      try {
        await this.load(item);
      } catch (e) {
        if (item.depth === 0) fail(e);
        continue;
      }
      await this.refresh((item.all ?? []).filter((c) => c.entry.k === "dir" && (c.open || c.children)));
    }
  }

  async refreshAt(p: Place): Promise<void> {
    const item = this.find(p);
    if (item?.children || item?.open) await this.load(item);
  }

  find(p: Place): Item | undefined {
    let item = this.tops.find((t) => t.root === p.root);
    let path = "";
    for (const part of p.path ? p.path.split("/") : []) {
      path = join(path, part);
      item = item?.all?.find((c) => c.path === path);
    }
    return item;
  }

  // reveal opens the way to an entry and makes it the active one.
  async reveal(p: Place): Promise<Item | undefined> {
    let item = this.tops.find((t) => t.root === p.root);
    const parts = p.path ? p.path.split("/") : [];
    for (let i = 0; item && i < parts.length; i++) {
      const path = parts.slice(0, i + 1).join("/");
      const up: Item = item;
      if (!up.open) await this.expand(up);
      if (!up.all?.some((c) => c.path === path)) await this.load(up);
      item = up.all?.find((c) => c.path === path);
    }
    if (item) this.choose(item);
    return item;
  }

  async restore(): Promise<void> {
    const open = new Set(JSON.parse(remember("open") || "[]") as string[]);
    const go = async (item: Item): Promise<void> => {
      await this.expand(item).catch(() => undefined);
      for (const c of item.children ?? []) if (c.entry.k === "dir" && open.has(key(c))) await go(c);
    };
    const first = remember("open") === "";
    for (const t of this.tops) if (open.has(key(t)) || (first && t.root === "project")) await go(t);
  }

  private keep(): void {
    const out: string[] = [];
    const go = (item: Item): void => {
      if (item.open) out.push(key(item));
      item.children?.forEach(go);
    };
    this.tops.forEach(go);
    keepWord("open", JSON.stringify(out.slice(0, 500)));
  }

  build(): void {
    const flat: Item[] = [];
    const go = (item: Item): void => {
      flat.push(item);
      if (item.open) for (const c of item.children ?? []) go(c);
    };
    this.tops.forEach(go);
    this.flat = flat;
    this.rows.style.height = flat.length * rowHeight + "px";
    this.paint();
  }

  paint(): void {
    if (this.painted) return;
    this.painted = true;
    requestAnimationFrame(() => {
      this.painted = false;
      if (!this.pressed) this.draw();
    });
  }

  private draw(): void {
    const from = Math.max(0, Math.floor(this.at.scrollTop / rowHeight) - 8);
    const to = Math.min(this.flat.length, Math.ceil((this.at.scrollTop + this.at.clientHeight) / rowHeight) + 8);
    const out: HTMLElement[] = [];
    const focused = document.activeElement === this.at;
    for (let i = from; i < to; i++) out.push(this.row(this.flat[i]!, i, focused));
    const at = this.active ? this.flat.indexOf(this.active) : -1;
    if (at >= 0 && (at < from || at >= to)) out.push(this.row(this.active!, at, focused));
    this.rows.replaceChildren(...out);
    if (at >= 0) this.at.setAttribute("aria-activedescendant", "row-" + at);
    else this.at.removeAttribute("aria-activedescendant");
  }

  private row(item: Item, index: number, focused: boolean): HTMLElement {
    const e = item.entry;
    const folder = e.k === "dir";
    const siblings = item.up?.children ?? this.tops;
    const classes = ["row"];
    if (item === this.active) classes.push(focused ? "active" : "was");
    if (this.selected.has(item)) classes.push("chosen");
    if (this.cut.has(key(item))) classes.push("cut");
    if (item.top) classes.push("top");
    const row = h("div", {
      class: classes.join(" "), role: "treeitem", id: "row-" + index, "aria-level": item.depth + 1, "aria-selected": String(this.selected.has(item)),
      "aria-setsize": siblings.length, "aria-posinset": siblings.indexOf(item) + 1, "aria-expanded": folder ? String(item.open) : undefined,
      "aria-label": visible(item.name) + (item.top && !item.top.fixed ? ", shown directory" : "") + (e.k === "link" ? ", link" : e.k === "special" ? ", device or pipe" : ""),
      title: item.top ? item.top.path : this.about(item),
    });
    row.style.top = index * rowHeight + "px";
    row.style.paddingInlineStart = 8 + item.depth * 14 + "px";
    row.append(h("span", { class: "twig" }, folder ? icon(item.loading ? "busy" : item.open ? "down" : "right") : null), icon(iconOf(item)), h("span", { class: "name" }, visible(item.name)));
    if (e.k === "file") row.append(h("span", { class: "size", "data-size": size(e.s ?? 0) }));
    return row;
  }

  private about(item: Item): string {
    const e = item.entry;
    const lines = [visible(item.name)];
    if (e.k === "file") lines.push(`${(e.s ?? 0).toLocaleString("en-US")} bytes`);
    lines.push(`changed ${ago(e.t)} (${new Date(e.t).toLocaleString()})`, `of ${this.people[e.u] ?? e.u}, mode ${(e.m & 0o7777).toString(8).padStart(3, "0")}`);
    if (e.l) lines.push(`${e.l} names (hard links)`);
    return lines.join("\n");
  }

  private under(e: MouseEvent): Item | undefined {
    const row = (e.target as Element).closest(".row");
    return row ? this.flat[Number(row.id.slice(4))] : undefined;
  }

  private mark(item: Item | undefined): void {
    for (const row of this.rows.children) row.classList.toggle("target", item !== undefined && this.flat[Number(row.id.slice(4))] === item);
  }

  choose(item: Item, more: "one" | "toggle" | "range" = "one"): void {
    this.active = item;
    if (more === "toggle") {
      if (!this.selected.delete(item)) this.selected.add(item);
      this.anchor = item;
    } else if (more === "range") {
      const a = this.flat.indexOf(this.anchor ?? item);
      const b = this.flat.indexOf(item);
      this.selected.clear();
      for (let i = Math.min(a, b); i <= Math.max(a, b); i++) if (!this.flat[i]?.top) this.selected.add(this.flat[i]!);
    } else {
      this.selected.clear();
      this.selected.add(item);
      this.anchor = item;
    }
    if (this.selected.size > 1) say(`${this.selected.size} selected`);
    this.showRow(item);
    this.paint();
  }

  private showRow(item: Item): void {
    const i = this.flat.indexOf(item);
    if (i < 0) return;
    const top = i * rowHeight;
    if (top < this.at.scrollTop) this.at.scrollTop = top;
    else if (top + rowHeight > this.at.scrollTop + this.at.clientHeight) this.at.scrollTop = top + rowHeight - this.at.clientHeight;
  }

  private onClick(e: MouseEvent): void {
    const item = this.under(e);
    if (!item) return;
    this.choose(item, e.shiftKey ? "range" : e.ctrlKey || e.metaKey ? "toggle" : "one");
    if (e.shiftKey || e.ctrlKey || e.metaKey) return;
    if (item.entry.k === "dir" && e.detail < 2) {
      if (item.open) this.collapse(item);
      else this.expand(item).catch(fail);
    }
  }

  menuAtRow(): void {
    const i = this.active ? this.flat.indexOf(this.active) : 0;
    const box = this.at.getBoundingClientRect();
    this.actions.menu(box.left + 40, box.top + i * rowHeight - this.at.scrollTop + rowHeight);
  }

  private onKey(e: KeyboardEvent): void {
    const item = this.active;
    if (!item) return;
    const i = this.flat.indexOf(item);
    const page = Math.max(1, Math.floor(this.at.clientHeight / rowHeight) - 1);
    const go = (to: number): void => {
      const next = this.flat[Math.max(0, Math.min(this.flat.length - 1, to))];
      if (next) this.choose(next, e.shiftKey ? "range" : "one");
    };
    const control = e.ctrlKey || e.metaKey;
    if (e.key.length !== 1 || control) this.typed = "";
    if (control && !e.shiftKey && !e.altKey) {
      switch (e.key.toLowerCase()) {
        case "a":
          for (const c of (item.up ?? item).children ?? []) this.selected.add(c);
          this.paint();
          say(`${this.selected.size} selected`);
          break;
        case "c": this.actions.copy(false); break;
        case "x": this.actions.copy(true); break;
        case "v": this.actions.paste(); break;
        case " ": this.choose(item, "toggle"); break;
        default: return;
      }
      e.preventDefault();
      return;
    }
    if (e.altKey || control) return;
    switch (e.key) {
      case "ArrowDown": go(i + 1); break;
      case "ArrowUp": go(i - 1); break;
      case "Home": go(0); break;
      case "End": go(this.flat.length - 1); break;
      case "PageDown": go(i + page); break;
      case "PageUp": go(i - page); break;
      case "ArrowRight":
        if (item.entry.k !== "dir") break;
        if (!item.open) this.expand(item).catch(fail);
        else if (item.children?.[0]) this.choose(item.children[0]);
        break;
      case "ArrowLeft":
        if (item.open) this.collapse(item);
        else if (item.up) this.choose(item.up);
        break;
      case "Enter":
        if (item.entry.k === "dir") {
          if (item.open) this.collapse(item);
          else this.expand(item).catch(fail);
        } else this.actions.open(item);
        break;
      case " ":
        if (this.typed && e.timeStamp - this.typedAt < 800) this.type(e);
        else this.choose(item, "toggle");
        break;
      case "F2": this.actions.rename(); break;
      case "Delete": this.actions.remove(); break;
      case "F10":
        if (!e.shiftKey) return;
        this.menuAtRow();
        break;
      case "ContextMenu": this.menuAtRow(); break;
      case "Escape":
        this.choose(item);
        break;
      default:
        if (e.key.length !== 1) return;
        this.type(e);
    }
    e.preventDefault();
  }

  // type jumps to the next name that begins with what was typed.
  private type(e: KeyboardEvent): void {
    this.typed = e.timeStamp - this.typedAt < 800 ? this.typed + e.key : e.key;
    this.typedAt = e.timeStamp;
    const words = this.typed.toLowerCase();
    const from = this.active ? this.flat.indexOf(this.active) + (this.typed.length === 1 ? 1 : 0) : 0;
    for (let k = 0; k < this.flat.length; k++) {
      const item = this.flat[(from + k) % this.flat.length]!;
      if (item.name.toLowerCase().startsWith(words)) {
        this.choose(item);
        return;
      }
    }
  }
}

function iconOf(item: Item): string {
  if (item.top) return item.top.only ? "file" : item.root === "home" ? "home" : item.root === "project" ? "project" : "folder-tree";
  switch (item.entry.k) {
    case "dir": return item.open ? "folder-open" : "folder";
    case "link": return "link";
    case "special": return "special";
  }
  const ext = item.name.slice(item.name.lastIndexOf(".") + 1).toLowerCase();
  if (ext === "ipynb") return "notebook";
  if (["png", "jpg", "jpeg", "gif", "webp", "svg", "avif", "bmp", "ico"].includes(ext)) return "image";
  if (["csv", "tsv"].includes(ext)) return "table";
  if (["py", "r", "js", "ts", "go", "c", "cpp", "h", "sh", "sql", "jl", "java", "rs", "html", "css", "json", "yaml", "yml", "toml"].includes(ext)) return "code";
  if (["md", "txt", "pdf", "rst", "tex"].includes(ext)) return "text";
  return "file";
}

const kept = "quire.workbench." + (document.body.dataset.prefix ?? "") + ".";

export function remember(word: string): string {
  try {
    return sessionStorage.getItem(kept + word) ?? "";
  } catch {
    return "";
  }
}

export function keepWord(word: string, value: string): void {
  try {
    sessionStorage.setItem(kept + word, value);
  } catch {
    // Then a reload begins anew.
  }
}

export function directoryOf(p: Place): Place {
  return { root: p.root, path: parent(p.path) };
}

export function nameOf(p: Place): string {
  return last(p.path);
}

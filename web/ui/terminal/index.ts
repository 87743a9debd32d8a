import { Link, type LinkState } from "./link";
import { fontRange, loadSettings, saveSettings } from "./settings";
import { matchColors, onThemeChange } from "./theme";
import { View, type Host } from "./view";
import type { Tab } from "./wire";

function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const prefix = document.body.dataset.prefix ?? "";
const project = document.body.dataset.project ?? "";
const settings = loadSettings();
const views = new Map<string, View>();
const buttons = new Map<string, HTMLButtonElement>();
let tabs: Tab[] = [];
let selected = "";
let wanted = remembered();

// Inside a tab of Workbench the page shows one shell: the one its address names,
// or a new one. What concerns tabs is then Workbench's, and told to it.
const query = new URLSearchParams(location.search);
const one = query.has("shell") && parent !== window;
let own = query.get("shell") ?? "";
let all: Tab[] = []; // also those of other pages
let coming = false; // our own was asked for and is not in the list yet
let had = false; // our own was in the list
let refused = false; // our own could not be opened; not asked again until the link is a new one
document.body.classList.toggle("one", one);

const host: Host = {
  prefix,
  settings,
  linkUp: () => link.isUp,
  notice,
  titled: (v) => {
    const b = buttons.get(v.id);
    if (b) b.title = v.title;
    if (v.id === selected) retitle();
  },
  news: (v) => mark(v.id, true),
  restart: (v) => void command({ do: "restart", shell: v.id }).then((a) => a.error || v.revive()),
  close: (v) => void close(v.id),
};

const link = new Link(prefix, one, { state: linkState, list, trouble: notice });

function remembered(): string {
  try {
    return sessionStorage.getItem("quire.shell") ?? "";
  } catch {
    return "";
  }
}

// command asks the terminal for something and shows what went wrong.
async function command(c: Parameters<Link["ask"]>[0]) {
  const a = await link.ask(c);
  if (a.error) notice(a.error.message);
  return a;
}

async function open(): Promise<void> {
  if (one) return openOwn();
  const a = await command({ do: "open" });
  if (!a.shell) return;
  if (views.has(a.shell)) select(a.shell, true);
  else wanted = a.shell; // the list is still on its way
}

async function openOwn(): Promise<void> {
  if (coming) return;
  coming = true;
  had = refused = false;
  const a = await command({ do: "open" });
  if (a.shell) {
    own = a.shell;
    // A reload finds it again.
    history.replaceState(null, "", "?" + new URLSearchParams({ shell: own }).toString());
  } else {
    coming = false;
    refused = true;
  }
  list(all, false);
}

// report tells Workbench what its tab is to say.
function report(gone = false): void {
  if (!one || coming) return;
  const tab = all.find((t) => t.id === own);
  parent.postMessage({ quire: "shell", id: own, name: tab?.name ?? "", title: views.get(own)?.title ?? "", ended: tab?.ended !== undefined, gone }, location.origin);
}

// toWorkbench hands on a key that concerns tabs.
function toWorkbench(does: string): void {
  parent.postMessage({ quire: "tabs", does }, location.origin);
}

async function close(id: string): Promise<void> {
  const tab = tabs.find((t) => t.id === id);
  if (!tab) return;
  const a = await command({ do: "close", shell: id });
  if (!a.busy) return;
  byId("close-text").textContent = `“${a.busy}” is running in ${tab.name} and will be ended.`;
  if (await ask("close-box")) await command({ do: "close", shell: id, sure: true });
  else views.get(id)?.focus();
}

async function rename(id: string): Promise<void> {
  const tab = tabs.find((t) => t.id === id);
  if (!tab) return;
  const field = byId<HTMLInputElement>("name");
  field.value = tab.name;
  const answer = ask("name-box");
  field.select();
  if (await answer) await command({ do: "rename", shell: id, name: field.value });
}

byId("keep-name").addEventListener("click", () => byId<HTMLDialogElement>("name-box").close());

// ask shows a dialog and says whether its main button was used.
function ask(id: string): Promise<boolean> {
  const box = byId<HTMLDialogElement>(id);
  box.returnValue = "";
  box.showModal();
  return new Promise((done) => box.addEventListener("close", () => done(box.returnValue === "ok"), { once: true }));
}

// list makes the page agree with the list of shells.
function list(now: Tab[], fresh: boolean): void {
  if (fresh) notice("The terminal was started anew. The shells from before have ended.");
  if (one) {
    all = now;
    now = now.filter((t) => t.id === own);
    if (now.length > 0) [coming, had] = [false, true];
    else if (own === "" && !refused) void openOwn();
    else if (had && !fresh) report(true); // closed, here or in another page
  }
  const before = tabs.map((t) => t.id);
  tabs = now;
  for (const [id, view] of views) {
    if (now.some((t) => t.id === id)) continue;
    view.remove();
    views.delete(id);
    buttons.get(id)?.remove();
    buttons.delete(id);
  }
  for (const t of now) {
    if (!views.has(t.id)) add(t);
    const b = buttons.get(t.id)!;
    b.querySelector(".label")!.textContent = t.name;
    mark(t.id, false);
  }
  // In the list's order; what stands right is not moved, or it would lose focus.
  now.forEach((t, i) => {
    const b = buttons.get(t.id)!;
    if (byId("tabs").children[i] !== b) byId("tabs").insertBefore(b, byId("tabs").children[i] ?? null);
  });
  byId("empty").hidden = now.length > 0 || coming;
  byId("find").hidden = now.length === 0;
  if (one && own !== "") byId("empty").querySelector("h2")!.textContent = "The shell that was here has ended";
  if (now.length === 0) {
    byId("finder").hidden = true;
    selected = "";
    retitle();
    if (mayFocus() && !document.querySelector("dialog[open]")) byId("begin").focus();
    return;
  }
  if (wanted && views.has(wanted)) {
    select(wanted, true);
  } else if (!views.has(selected)) {
    const was = Math.max(0, before.indexOf(selected));
    select((now[Math.min(was, now.length - 1)] ?? now[0]!).id, true);
  }
  wanted = "";
  for (const v of views.values()) v.connect();
  retitle();
}

function add(t: Tab): void {
  const view = new View(t.id, host);
  views.set(t.id, view);
  byId("panels").append(view.panel);
  const b = document.createElement("button");
  b.type = "button";
  b.className = "tab";
  b.id = "tab-" + t.id;
  b.setAttribute("role", "tab");
  b.setAttribute("aria-controls", view.panel.id);
  b.setAttribute("aria-selected", "false");
  b.tabIndex = -1;
  const label = document.createElement("span");
  label.className = "label";
  const mark = document.createElement("span");
  mark.className = "mark";
  const x = document.createElement("span"); // for the mouse; the keyboard has Delete
  x.className = "close";
  x.title = "Close shell";
  x.setAttribute("aria-hidden", "true");
  const icon = document.createElement("i");
  icon.className = "icon icon-x";
  x.append(icon);
  x.addEventListener("click", (e) => {
    e.stopPropagation();
    void close(t.id);
  });
  b.append(mark, label, x);
  b.addEventListener("click", () => select(t.id, true));
  b.addEventListener("dblclick", () => void rename(t.id));
  b.addEventListener("auxclick", (e) => {
    if (e.button === 1) void close(t.id);
  });
  b.addEventListener("keydown", (e) => tabKey(e, t.id));
  buttons.set(t.id, b);
}

// mark shows that a shell has ended or has something new.
function mark(id: string, news: boolean): void {
  const at = buttons.get(id)?.querySelector<HTMLElement>(".mark");
  if (!at) return;
  const ended = tabs.find((t) => t.id === id)?.ended !== undefined;
  const text = ended ? "■" : news && id !== selected ? "●" : at.textContent === "●" && id !== selected ? "●" : "";
  if (at.textContent === text) return;
  at.textContent = text;
  at.title = text === "■" ? "ended" : text === "●" ? "new output" : "";
  at.setAttribute("role", text ? "img" : "presentation");
  if (text) at.setAttribute("aria-label", at.title);
  else at.removeAttribute("aria-label");
}

// A page inside of another must not take the focus from it.
function mayFocus(): boolean {
  return !one || document.hasFocus();
}

function select(id: string, focus: boolean): void {
  const view = views.get(id);
  if (!view) return;
  selected = id;
  try {
    if (!one) sessionStorage.setItem("quire.shell", id);
  } catch {
    // Then a reload begins with the first tab.
  }
  for (const [other, v] of views) {
    const b = buttons.get(other)!;
    b.setAttribute("aria-selected", String(other === id));
    b.tabIndex = other === id ? 0 : -1;
    if (other !== id) v.hide();
  }
  view.show();
  mark(id, false);
  buttons.get(id)!.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (focus && mayFocus()) view.focus();
  if (!byId("finder").hidden) seek(0);
  retitle();
}

function retitle(): void {
  const tab = tabs.find((t) => t.id === selected);
  const title = views.get(selected)?.title;
  document.title = [title || tab?.name, "Terminal", project].filter(Boolean).join(" – ");
  report();
}

function neighbor(id: string, by: number): string {
  const i = tabs.findIndex((t) => t.id === id);
  return tabs[(i + by + tabs.length) % tabs.length]?.id ?? id;
}

function tabKey(e: KeyboardEvent, id: string): void {
  if (e.ctrlKey || e.altKey || e.metaKey) return;
  const go = (to: string | undefined) => {
    if (!to) return;
    select(to, false);
    buttons.get(to)?.focus();
  };
  switch (e.key) {
    case "ArrowLeft": go(neighbor(id, -1)); break;
    case "ArrowRight": go(neighbor(id, 1)); break;
    case "Home": go(tabs[0]?.id); break;
    case "End": go(tabs.at(-1)?.id); break;
    case "Delete": void close(id); break;
    case "F2": void rename(id); break;
    default: return;
  }
  e.preventDefault();
}

// Every key of ours holds Ctrl and Shift: letters with both reach no program as
// more than Ctrl alone, so hardly anything is taken from them.
const keys: Record<string, () => void> = {
  Enter: () => void open(),
  Backspace: () => void close(selected),
  ArrowLeft: () => select(neighbor(selected, -1), true),
  ArrowRight: () => select(neighbor(selected, 1), true),
  ArrowUp: () => buttons.get(selected)?.focus(),
  ArrowDown: () => views.get(selected)?.focus(),
  KeyF: () => showFinder(),
  KeyC: () => void copy(),
  KeyH: () => help(),
};

if (one) {
  Object.assign(keys, {
    Enter: () => toWorkbench("open"),
    Backspace: () => toWorkbench("close"),
    ArrowLeft: () => toWorkbench("left"),
    ArrowRight: () => toWorkbench("right"),
    ArrowUp: () => toWorkbench("up"),
  });
  addEventListener("focus", () => {
    if (document.activeElement === document.body) (views.get(selected) ?? byId("begin")).focus();
  });
  addEventListener("message", (e) => {
    if (e.source !== parent || e.origin !== location.origin) return;
    const said = e.data as { quire?: unknown } | null;
    if (said?.quire === "end") void command({ do: "close", shell: own, sure: true });
    if (said?.quire === "rename") void rename(own);
  });
  // A file dropped here must not replace the page around this one.
  for (const type of ["dragover", "drop"] as const) {
    addEventListener(type, (e) => {
      if (e.dataTransfer?.types.includes("Files")) e.preventDefault();
    });
  }
}

addEventListener("keydown", (e) => {
  if (!e.ctrlKey || !e.shiftKey || e.altKey || e.metaKey || document.querySelector("dialog[open]")) return;
  const does = keys[e.code];
  if (!does) return;
  e.preventDefault();
  e.stopPropagation();
  if (!e.repeat) does();
}, true);

async function copy(): Promise<void> {
  const text = views.get(selected)?.selection();
  if (!text) return;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    notice("The browser did not allow copying. Use its own menu on the selection.");
  }
}

function help(): void {
  byId<HTMLDialogElement>("help-box").showModal();
}

// Search.

const words = byId<HTMLInputElement>("words");

function showFinder(): void {
  if (!views.has(selected)) return;
  byId("finder").hidden = false;
  words.focus();
  words.select();
}

function hideFinder(): void {
  byId("finder").hidden = true;
  for (const v of views.values()) v.search.clearDecorations();
  byId("hits").textContent = "";
  views.get(selected)?.focus();
}

let counting: { dispose(): void } | undefined;

function seek(by: number): void {
  const search = views.get(selected)?.search;
  if (!search) return;
  counting?.dispose();
  counting = search.onDidChangeResults((r) => {
    byId("hits").textContent = !words.value ? "" : r.resultCount === 0 ? "none" : r.resultIndex < 0 ? `${r.resultCount}` : `${r.resultIndex + 1} of ${r.resultCount}`;
  });
  if (!words.value) {
    search.clearDecorations();
    byId("hits").textContent = "";
  } else if (by > 0) {
    search.findNext(words.value, { decorations: matchColors() });
  } else {
    search.findPrevious(words.value, { decorations: matchColors(), incremental: by === 0 }); // the newest is what one looks for
  }
}

words.addEventListener("input", () => seek(0));
words.addEventListener("keydown", (e) => {
  if (e.key === "Enter") {
    e.preventDefault();
    seek(e.shiftKey ? 1 : -1);
  }
});
byId("finder").addEventListener("keydown", (e) => {
  if (e.key === "Escape") hideFinder();
});
byId("finder").addEventListener("submit", (e) => {
  e.preventDefault();
  seek(-1);
});
byId("later").addEventListener("click", () => seek(1));
byId("found").addEventListener("click", hideFinder);

// Settings.

function adopt(): void {
  saveSettings(settings);
  byId("font").textContent = String(settings.font);
  byId<HTMLButtonElement>("smaller").disabled = settings.font <= fontRange.least;
  byId<HTMLButtonElement>("larger").disabled = settings.font >= fontRange.most;
  for (const v of views.values()) v.adopt(settings);
}

function resizeText(by: number): void {
  settings.font = Math.min(fontRange.most, Math.max(fontRange.least, settings.font + by));
  adopt();
}

const reader = byId<HTMLInputElement>("reader");
const clip = byId<HTMLInputElement>("clip");
reader.checked = settings.reader;
clip.checked = settings.clipboard;
reader.addEventListener("change", () => {
  settings.reader = reader.checked;
  adopt();
});
clip.addEventListener("change", () => {
  settings.clipboard = clip.checked;
  adopt();
});
byId("smaller").addEventListener("click", () => resizeText(-1));
byId("larger").addEventListener("click", () => resizeText(1));
byId("settings").addEventListener("click", () => byId<HTMLDialogElement>("settings-box").showModal());
byId("open").addEventListener("click", () => void open());
byId("begin").addEventListener("click", () => void open());
byId("find").addEventListener("click", () => (byId("finder").hidden ? showFinder() : hideFinder()));
byId("help").addEventListener("click", help);
for (const id of ["help-box", "settings-box"]) byId(id).addEventListener("close", () => views.get(selected)?.focus());
onThemeChange(adopt);
adopt();

// What the page says about itself.

function line(icon: string, text: string, action?: { text: string; do(): void }): Node[] {
  const i = document.createElement("i");
  i.className = "icon " + icon;
  i.setAttribute("aria-hidden", "true");
  const words = document.createElement("span");
  words.className = "words";
  words.textContent = text;
  if (!action) return [i, words];
  const b = document.createElement("button");
  b.type = "button";
  b.textContent = action.text;
  b.addEventListener("click", () => action.do());
  return [i, words, b];
}

let lateNote = 0;

function linkState(s: LinkState): void {
  const at = byId("link");
  clearTimeout(lateNote);
  switch (s.is) {
    case "up":
      refused = false;
      at.replaceChildren();
      return;
    case "refused": {
      const text = s.why === "signed-out"
        ? "You are signed out, or may no longer use this project. Signing out ends no shell."
        : "The terminal cannot be reached: it is being started or was stopped.";
      at.replaceChildren(...line("icon-warn", text, { text: "Reload page", do: () => location.reload() }));
      return;
    }
    case "lost": {
      for (const v of views.values()) v.hangUp();
      const say = () => at.replaceChildren(...line("icon-link", "Connection lost. Your shells go on running; trying to come back.", { text: "Try now", do: () => link.now() }));
      // A short break is not worth a word.
      if (at.childElementCount === 0) lateNote = setTimeout(say, 600);
    }
  }
}

let noticeEnds = 0;

function notice(sentence: string): void {
  const at = byId("notice");
  at.replaceChildren(...line("icon-warn", sentence, { text: "Dismiss", do: () => (at.hidden = true) }));
  at.hidden = false;
  clearTimeout(noticeEnds);
  noticeEnds = setTimeout(() => (at.hidden = true), 12_000);
}

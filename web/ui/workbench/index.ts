import { button, byId, confirm, dialog, fail, h, notice, plural, prompt, quiet, say, visible } from "./dom";
import { Editor } from "./editor";
import { type Action, openMenu } from "./menu";
import { permissionDialog, shareDialog } from "./permission";
import { Desk, type Panel } from "./tabs";
import { clearEnded, job, upload, type Wish, wishesIn, wishesOf } from "./transfer";
import { directoryOf, type Item, key, keepWord, nameOf, remember, Tree } from "./tree";
import { Terminals, terminalRoot } from "./terminal";
import { nothing, pdf, picture, table } from "./viewer";
import { archive, hide, join, mkdir, type Place, raw, Refused, rename, type Root, roots, show, shown, siblings, stat, typable, write } from "./wire";

const project = document.body.dataset.project ?? "";
let clipboard: { items: Place[]; cut: boolean } | undefined;
let me = "";

const tree = new Tree({
  open: (item) => void openItem(item),
  menu: (x, y) => openMenu(x, y, "Actions", actions(), tree.at),
  rename: () => void renameActive(),
  remove: () => void remove(),
  copy,
  paste: () => void paste(),
  drop: (target, data) => void wishesOf(data).then((w) => send(target, w)).catch(fail),
});

const desk = new Desk({
  selected: (p) => {
    document.title = (p ? `${p.title} – ` : "") + "Workbench" + (project ? ` – ${project}` : "");
    history.replaceState(null, "", p && p.place.root ? `#${p.place.root}/${p.place.path}` : location.pathname + location.search);
  },
  closing: async (p) => p.leave ? p.leave() : !p.dirty || await confirm(`Close ${p.title}?`, "Your changes in it are not saved and will be lost.", "Close without saving"),
  changed: () => keepWord("tabs", JSON.stringify({ list: desk.all().filter((p) => p.place.root).map((p) => [p.place.root, p.place.path, p.as, p.title]), at: desk.current ? key(desk.current.place) : "" })),
});

const terminals = new Terminals(desk, () => {
  if (innerWidth <= 720) side(false);
});

const pictures = ["png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "ico", "svg"];

// open shows a file in the tab that fits it.
async function open(place: Place, as = "", focus = true): Promise<void> {
  quiet();
  if (place.root === terminalRoot) {
    terminals.open(place.path, focus);
    return;
  }
  const there = desk.find(place, as);
  if (there) {
    desk.select(there, focus);
    return;
  }
  const now = await stat(place);
  if (now.entry.k === "link") {
    if (now.out) throw new Refused("invalid", `This link leads to ${visible(now.target) || "nothing"}, which is not in this directory. Use Show directories to open that place.`);
    if (now.to === "dir") {
      const item = await tree.reveal({ root: place.root, path: now.leads });
      if (item) await tree.expand(item);
      return;
    }
    return open({ root: place.root, path: now.leads }, as, focus);
  }
  const name = shown(nameOf(place));
  const ext = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  const add = (panel: Omit<Panel, "title" | "as">, title = visible(name)): void => desk.add(Object.assign(panel, { title, as }), focus);
  if (now.entry.k !== "file") {
    add(nothing(place, now, "This is a device, a pipe or a socket. It can be used by programs only."));
  } else if (!now.readable) {
    add(nothing(place, now, `You do not have the right to read this file. ${visible(now.owner)} owns it and can give it to you.`));
  } else if (as === "" && pictures.includes(ext)) {
    add(picture(place, now));
  } else if (as === "" && ext === "pdf") {
    add(pdf(place, now));
  } else if (as === "" && (ext === "csv" || ext === "tsv")) {
    add(await table(place, now, () => void open(place, "text").catch(fail)));
  } else {
    const editor = new Editor(place, {
      retitle: () => desk.retitle(),
      moved: (_, to) => {
        const p = desk.all().find((q) => q.editor === editor);
        if (p) {
          p.place = to;
          p.title = visible(shown(nameOf(to)));
        }
        desk.retitle();
      },
      refresh: (dir) => void tree.refreshAt(dir).catch(fail),
    });
    try {
      await editor.load();
    } catch (e) {
      if (e instanceof Refused && (e.kind === "failed" || e.kind === "invalid")) {
        add(nothing(place, now, e.message));
        return;
      }
      throw e;
    }
    desk.add({
      place, as, title: visible(name), panel: editor.panel, editor,
      get dirty() { return editor.dirty; },
      show: () => editor.show(), focus: () => editor.focus(), close: () => editor.close(),
    }, focus);
  }
}

async function openItem(item: Item, as = ""): Promise<void> {
  try {
    if (as === "" && item.root === "project" && /\.ipynb$/i.test(item.name) && item.entry.k === "file") {
      window.open(`${siblings}/lab/tree/${item.path}`, "_blank", "noopener");
      return;
    }
    if (innerWidth <= 720) side(false);
    await open(item, as);
  } catch (e) {
    if (innerWidth <= 720 && !desk.current) side(true);
    fail(e);
  }
}

// actions are those of the menu, for what is selected.
function actions(): Action[] {
  const chosen = tree.chosen();
  const one = chosen.length === 1 ? chosen[0]! : undefined;
  const top = chosen.some((i) => i.top);
  const only = chosen.some((i) => (i.top ?? i.up?.top)?.only);
  const folder = one?.entry.k === "dir";
  const has = one?.entry.k === "file" || folder;
  const list: Action[] = [];
  if (one && !folder) {
    list.push({ label: "Open", icon: "file", keys: "Enter", do: () => void openItem(one) });
    if (/\.(ipynb|csv|tsv|svg)$/i.test(one.name)) list.push({ label: "Open as text", icon: "text", do: () => void openItem(one, "text") });
  }
  list.push(
    { label: "New File", icon: "file-plus", line: list.length > 0, off: only, do: () => void newFile() },
    { label: "New Folder", icon: "folder-plus", off: only, do: () => void newFolder() },
    { label: "Upload File", icon: "upload", off: only, do: () => byId("files").click() },
    { label: "Permissions", icon: "lock", line: true, off: !one || !has, do: () => void permissionsOf(one!) },
    { label: "Share", icon: "share", off: !one || !has || top || one.root === "home", do: () => void shareDialog(one!).then((ok) => ok ? tree.refreshAt(directoryOf(one!)) : undefined).catch(fail) },
    { label: "Download", icon: "download", do: () => void download(chosen) },
    { label: "Cut", icon: "cut", keys: "Ctrl X", line: true, off: top || only, do: () => copy(true) },
    { label: "Copy", icon: "copy", keys: "Ctrl C", off: top, do: () => copy(false) },
    { label: "Paste", icon: "paste", keys: "Ctrl V", off: !clipboard || only, do: () => void paste() },
    { label: "Rename", icon: "rename", keys: "F2", line: true, off: !one || top || only, do: () => void renameActive() },
    { label: "Delete", icon: "trash", keys: "Del", off: top, do: () => void remove() },
  );
  if (one) list.push({ label: "Copy path", icon: "copy", line: true, do: () => void copyPath(one) });
  if (one?.top && !one.top.fixed) list.push({ label: "Hide this directory", icon: "x", do: () => void hide(one.root).then(readRoots).catch(fail) });
  return list;
}

async function copyPath(item: Item): Promise<void> {
  try {
    const { full } = await stat(item);
    await navigator.clipboard.writeText(full);
    say("The path is copied.");
  } catch (e) {
    fail(e);
  }
}

async function permissionsOf(item: Item): Promise<void> {
  try {
    if (await permissionDialog(item, item.top?.path ?? "")) await tree.refreshAt(item.up ?? item);
  } catch (e) {
    fail(e);
  }
}

async function newFile(): Promise<void> {
  const dir = tree.folder();
  await prompt(`New file in ${visible(dir.name)}`, "Name", "", "Create", async (name) => {
    const place = { root: dir.root, path: join(dir.path, encodeURIComponent(name)) };
    await write(place, "", "");
    await tree.refreshAt(dir);
    await tree.reveal(place);
    await openItem(tree.find(place)!);
  }).catch(fail);
}

async function newFolder(): Promise<void> {
  const dir = tree.folder();
  await prompt(`New folder in ${visible(dir.name)}`, "Name", "", "Create", async (name) => {
    const place = { root: dir.root, path: join(dir.path, encodeURIComponent(name)) };
    await mkdir(place);
    await tree.refreshAt(dir);
    await tree.reveal(place);
  }).catch(fail);
}

async function renameActive(): Promise<void> {
  const item = tree.active;
  if (!item?.up) return;
  const before = typable(nameOf(item));
  await prompt(`Rename ${visible(item.name)}`, "New name", before, "Rename", async (name) => {
    if (name === before) return;
    const to = { root: item.root, path: join(item.up!.path, encodeURIComponent(name)) };
    await rename(item, to.path);
    desk.follow(item, to);
    await tree.refreshAt(item.up!);
    await tree.reveal(to);
    say(`Renamed to ${name}.`);
  }, before ? "" : "The name it has cannot be typed, so all of the new one is to be.").catch(fail);
  tree.at.focus();
}

async function remove(): Promise<void> {
  const items = tree.chosen().filter((i) => !i.top);
  if (!items.length) return;
  const what = items.length === 1 ? visible(items[0]!.name) : plural(items.length, "item");
  const folders = items.some((i) => i.entry.k === "dir");
  if (!await confirm(`Delete ${what}?`, `${folders ? "Everything inside is deleted too. " : ""}This is for good: there is no trash to take it back from.`, "Delete")) return;
  for (const [root, list] of byRoot(items)) {
    await job(`Delete ${what}`, "delete", { root, paths: list.map((i) => i.path) }, (p) => `${plural(p.items, "item")} deleted`);
  }
  tree.selected.clear();
  for (const dir of new Set(items.map((i) => i.up!))) await tree.refreshAt(dir).catch(fail);
  tree.at.focus();
}

function byRoot(items: Place[]): Map<string, Place[]> {
  const out = new Map<string, Place[]>();
  for (const i of items) out.set(i.root, [...out.get(i.root) ?? [], i]);
  return out;
}

function copy(cut: boolean): void {
  const items = tree.chosen().filter((i) => !i.top);
  if (!items.length) return;
  clipboard = { items: items.map((i) => ({ root: i.root, path: i.path })), cut };
  tree.cut = new Set(cut ? items.map(key) : []);
  tree.paint();
  say(`${plural(items.length, "item")} ${cut ? "cut" : "copied"}. Choose a folder and paste.`);
}

async function paste(): Promise<void> {
  if (!clipboard) return;
  const { items, cut } = clipboard;
  const to = tree.folder();
  const verb = cut ? "Move" : "Copy";
  const inside = items.find((i) => i.root === to.root && (to.path === i.path || to.path.startsWith(i.path + "/")));
  if (inside) {
    notice("A folder cannot be put into itself.");
    return;
  }
  if (cut) {
    clipboard = undefined;
    tree.cut.clear();
  }
  for (const [root, list] of byRoot(items)) {
    const title = `${verb} ${list.length === 1 ? visible(shown(nameOf(list[0]!))) : plural(list.length, "item")} to ${visible(to.name)}`;
    const ok = await job(title, "copy", { from: { root, paths: list.map((i) => i.path) }, to: { root: to.root, path: to.path }, move: cut }, (p) => `${plural(p.items, "item")} ${cut ? "moved" : "copied"}`);
    if (cut && ok) for (const i of list) desk.follow(i, { root: to.root, path: join(to.path, nameOf(i)) });
  }
  await tree.expand(to).catch(fail);
  await tree.refreshAt(to).catch(fail);
  if (cut) for (const i of items) await tree.refreshAt(directoryOf(i)).catch(fail);
}

function fetchAddress(address: string): void {
  const a = h("a", { href: address, download: "", hidden: true });
  document.body.append(a);
  a.click();
  a.remove();
}

// download sends one file as it is, anything else as an archive.
async function download(items: Item[]): Promise<void> {
  try {
    const one = items.length === 1 ? items[0]! : undefined;
    if (one?.entry.k === "file") {
      fetchAddress(raw(one, true));
      return;
    }
    const format = await dialog(one ? `Download ${visible(one.name)}` : `Download ${plural(items.length, "item")}`,
      [h("p", {}, "As one archive, made while it is sent. A zip opens everywhere; a tar keeps links and rights.")],
      [{ label: "Cancel", value: "" }, { label: "tar", value: "tar" }, { label: "zip", value: "zip", kind: "main" }]);
    if (format !== "zip" && format !== "tar") return;
    const groups = new Map<Item, Item[]>();
    for (const i of items) {
      const dir = i.up ?? i;
      groups.set(dir, [...groups.get(dir) ?? [], i]);
    }
    for (const [dir, list] of groups) {
      let names = list.map((i) => nameOf(i));
      if (list[0] === dir) {
        if (!dir.children) await tree.load(dir);
        names = (dir.all ?? []).map((i) => nameOf(i));
      }
      fetchAddress(await archive(dir.root, dir.path, names, format));
    }
    say("The download has begun.");
  } catch (e) {
    fail(e);
  }
}

async function send(target: Item, wishes: { files: Wish[]; folders: string[] }): Promise<void> {
  let waits = false;
  const refresh = (): void => {
    if (waits) return;
    waits = true;
    setTimeout(() => {
      waits = false;
      void tree.refreshAt(target).catch(fail);
    }, 300);
  };
  if (!target.open) await tree.expand(target).catch(fail);
  await upload(target, wishes, refresh);
}

for (const id of ["files", "folder"]) {
  const input = byId<HTMLInputElement>(id);
  input.addEventListener("change", () => {
    void send(tree.folder(), wishesIn(input.files ?? [])).catch(fail);
    input.value = "";
  });
}

const panels = byId("panels");
panels.addEventListener("dragover", (e) => {
  if (!e.dataTransfer?.types.includes("Files")) return;
  e.preventDefault();
  panels.classList.add("target");
});
panels.addEventListener("dragleave", () => panels.classList.remove("target"));
panels.addEventListener("drop", (e) => {
  panels.classList.remove("target");
  if (!e.dataTransfer) return;
  e.preventDefault();
  void wishesOf(e.dataTransfer).then((w) => send(tree.folder(), w)).catch(fail);
});
// A file dropped beside everything must not replace the page.
for (const type of ["dragover", "drop"] as const) addEventListener(type, (e) => e.preventDefault());

async function showDirectories(): Promise<void> {
  const input = h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "/data/shared", autofocus: true });
  const list = h("ul", { class: "shown" });
  const fill = (): void => {
    list.replaceChildren(...tree.tops.filter((t) => !t.top!.fixed).map((t) => {
      const b = button("Hide", () => void hide(t.root).then(readRoots).then(fill).catch(fail), "button small");
      b.setAttribute("aria-label", `Hide ${t.top!.path}`);
      return h("li", {}, h("span", {}, visible(t.top!.path)), b);
    }));
  };
  fill();
  let added: Root | undefined;
  const how = await dialog("Show directories", [
    h("p", {}, "Directories outside of the project, also what others have shared with you. They stay in your list until you hide them."),
    h("label", {}, "Full path of a directory or file", input), list,
  ], [{ label: "Close", value: "" }, { label: "Show", value: "ok", kind: "main" }], async () => {
    added = await show(input.value);
    return true;
  });
  if (how !== "ok" || !added) return;
  await readRoots();
  const item = tree.tops.find((t) => t.root === added!.id);
  if (!item) return;
  tree.choose(item);
  await tree.expand(item).catch(fail);
  tree.at.focus();
}

async function readRoots(): Promise<void> {
  const all = await roots();
  me = all.name;
  tree.setRoots(all.roots);
  byId("tree").setAttribute("aria-label", me ? `Files and folders that ${me} sees` : "Files and folders");
}

function side(on: boolean): void {
  byId("side").hidden = !on;
  byId("toggle").setAttribute("aria-expanded", String(on));
  if (on) tree.paint();
}

byId("toggle").addEventListener("click", () => side(byId("side").hidden !== false));
byId("new-file").addEventListener("click", () => void newFile());
byId("begin-file").addEventListener("click", () => void newFile());
byId("new-folder").addEventListener("click", () => void newFolder());
byId("upload").addEventListener("click", () => byId("files").click());
byId("begin-upload").addEventListener("click", () => byId("files").click());
byId("upload-folder").addEventListener("click", () => byId("folder").click());
byId("refresh").addEventListener("click", () => void readRoots().then(() => tree.refresh()).then(() => say("Refreshed.")).catch(fail));
byId("show").addEventListener("click", () => void showDirectories().catch(fail));
byId("actions").addEventListener("click", () => {
  const box = byId("actions").getBoundingClientRect();
  openMenu(box.left, box.bottom + 4, "Actions", actions(), byId("actions"));
});
byId("hidden").addEventListener("click", () => {
  tree.setDotted(!tree.dotted);
  byId("hidden").setAttribute("aria-pressed", String(tree.dotted));
});
byId("clear").addEventListener("click", clearEnded);
byId("help").addEventListener("click", () => byId<HTMLDialogElement>("help-box").showModal());
byId("terminal").addEventListener("click", () => {
  terminals.open();
});
byId("shells").addEventListener("click", () => {
  void terminals.choices().then((list) => {
    const box = byId("shells").getBoundingClientRect();
    openMenu(box.left, box.bottom + 4, "Terminals", list, byId("shells"));
  });
});
// On a phone the files lie over the panels.
byId("tabs").addEventListener("click", () => {
  if (innerWidth <= 720) side(false);
});
addEventListener("resize", () => {
  if (desk.current) desk.reveal(desk.current);
});
byId("fetch").addEventListener("submit", (e) => {
  e.preventDefault();
  const path = byId<HTMLInputElement>("fetch-path").value.replace(/^\/+|\/+$/g, "").split("/").map(encodeURIComponent).join("/");
  void (async () => {
    const item = await tree.reveal({ root: "project", path });
    if (!item) throw new Refused("not_found", "There is no such file or folder in the project.");
    await download([item]);
  })().catch(fail);
});
addEventListener("keydown", (e) => {
  if (document.querySelector("dialog[open]")) return;
  if (e.key === "F1") {
    e.preventDefault();
    byId("help").click();
  } else if ((e.ctrlKey || e.metaKey) && !e.shiftKey && !e.altKey && e.key.toLowerCase() === "b") {
    e.preventDefault();
    side(byId("side").hidden !== false);
  } else if ((e.ctrlKey || e.metaKey) && e.shiftKey && !e.altKey && e.key === "Enter") {
    e.preventDefault();
    if (!e.repeat) terminals.open();
  } else if ((e.ctrlKey || e.metaKey) && !e.altKey && e.key.toLowerCase() === "s") {
    e.preventDefault(); // the browser's own would save this page
  }
});
addEventListener("beforeunload", (e) => {
  if (desk.all().some((p) => p.dirty)) e.preventDefault();
});
addEventListener("focus", () => {
  desk.current?.editor?.check().catch(() => undefined);
});

async function begin(): Promise<void> {
  byId("hidden").setAttribute("aria-pressed", String(tree.dotted));
  if (innerWidth <= 720 && location.hash.length > 1) side(false);
  await readRoots();
  await tree.restore();
  const kept = JSON.parse(remember("tabs") || '{"list":[],"at":""}') as { list: [string, string, string, string][]; at: string };
  const hash = location.hash.slice(1);
  for (const [root, path, as, title] of kept.list) {
    // A terminal that is not looked at is not loaded.
    if (root === terminalRoot) terminals.open(path, false, false, title);
    else await open({ root, path }, as, false).catch(() => undefined);
  }
  const at = desk.all().find((p) => key(p.place) === kept.at);
  if (at ?? desk.all()[0]) desk.select((at ?? desk.all()[0])!, false);
  if (hash.includes("/")) {
    const place = { root: hash.slice(0, hash.indexOf("/")), path: hash.slice(hash.indexOf("/") + 1) };
    const item = place.root === terminalRoot ? undefined : await tree.reveal(place);
    if (item?.entry.k === "dir") await tree.expand(item);
    else if (place.root !== terminalRoot || place.path) await open(place);
  }
}

begin().catch(fail);

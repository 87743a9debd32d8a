// Uploads and other work that takes time, each a line in the list below the
// files, with how far it is and a button to cancel it.

import { button, byId, dialog, fail, h, plural, say, size, visible } from "./dom";
import { join, last, mkdir, type Place, type Progress, Refused, shown, uploadBegin, uploadCancel, uploadPiece, uploadStatus, work } from "./wire";

const atOnce = 3;

export class Line {
  private readonly li: HTMLElement;
  private readonly words = h("span", { class: "words" });
  private readonly bar = h("progress", { max: 1 });
  private readonly cancelButton: HTMLButtonElement;
  private readonly aborter = new AbortController();
  ended = false;

  constructor(private readonly title: string) {
    this.cancelButton = button("Cancel", () => this.aborter.abort(), "button small");
    this.cancelButton.setAttribute("aria-label", `Cancel: ${title}`);
    this.bar.setAttribute("aria-label", title);
    this.li = h("li", {}, h("span", { class: "transfer-name", title }, title), this.words, this.bar, this.cancelButton);
    byId("transfer-list").prepend(this.li);
    byId("transfers").hidden = false;
    this.li.addEventListener("quire-clear", () => {
      if (this.ended) this.li.remove();
    });
  }

  get signal(): AbortSignal {
    return this.aborter.signal;
  }

  at(words: string, part?: number): void {
    this.words.textContent = words;
    if (part === undefined) this.bar.removeAttribute("value");
    else this.bar.value = part;
  }

  end(words: string, bad = false): void {
    this.ended = true;
    this.words.textContent = (bad ? "▲ " : "✓ ") + words;
    this.li.classList.toggle("bad", bad);
    this.bar.hidden = true;
    this.cancelButton.hidden = true;
    say(`${this.title}: ${words}`);
  }

  list(errors: string[]): void {
    const all = h("details", {}, h("summary", {}, plural(errors.length, "problem")), h("ul", {}, ...errors.map((e) => h("li", {}, e))));
    this.li.append(all);
  }
}

export function clearEnded(): void {
  for (const li of [...byId("transfer-list").children]) li.dispatchEvent(new Event("quire-clear"));
  byId("transfers").hidden = byId("transfer-list").children.length === 0;
}

// job runs work of the server's and shows it once it takes longer than a moment.
export async function job(title: string, at: string, body: unknown, end: (p: Progress) => string): Promise<boolean> {
  const line = new Line(title);
  line.at("Working…");
  try {
    const p = await work(at, body, (now) => line.at(`${plural(now.items, "item")}${now.bytes ? ", " + size(now.bytes) : ""}`), line.signal);
    line.end(end(p) + (p.failed ? `; ${plural(p.failed, "item")} could not be done` : ""), p.failed > 0);
    if (p.errors?.length) line.list(p.errors);
    return p.failed === 0;
  } catch (e) {
    if (line.signal.aborted) line.end("canceled; what was done already stays", true);
    else {
      line.end(e instanceof Error ? e.message : String(e), true);
      fail(e);
    }
    return false;
  }
}

export interface Wish {
  file: File;
  path: string; // below the target, percent-encoded
}

// wishesOf reads what was dropped: files, and folders with all that is in them.
export async function wishesOf(data: DataTransfer): Promise<{ files: Wish[]; folders: string[] }> {
  const entries = [...data.items].map((i) => i.webkitGetAsEntry()).filter((e) => e !== null);
  const plain = entries.length ? [] : [...data.files];
  const out = { files: plain.map((file) => ({ file, path: encodeURIComponent(file.name) })), folders: [] as string[] };
  const go = async (e: FileSystemEntry, at: string): Promise<void> => {
    const path = join(at, encodeURIComponent(e.name));
    if (e.isFile) {
      const file = await new Promise<File>((ok, no) => (e as FileSystemFileEntry).file(ok, no));
      out.files.push({ file, path });
      return;
    }
    out.folders.push(path);
    const reader = (e as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((ok, no) => reader.readEntries(ok, no));
      if (!some.length) break;
      for (const child of some) await go(child, path);
    }
  };
  for (const e of entries) await go(e, "");
  return out;
}

export function wishesIn(files: Iterable<File>): { files: Wish[]; folders: string[] } {
  const out: { files: Wish[]; folders: string[] } = { files: [], folders: [] };
  const folders = new Set<string>();
  for (const file of files) {
    const parts = (file.webkitRelativePath || file.name).split("/").map(encodeURIComponent);
    for (let i = 1; i < parts.length; i++) folders.add(parts.slice(0, i).join("/"));
    out.files.push({ file, path: parts.join("/") });
  }
  out.folders = [...folders];
  return out;
}

type Choice = "" | "replace" | "skip";

// upload sends files into a directory, a few at once. changed is called whenever
// one has arrived.
export async function upload(to: Place, wishes: { files: Wish[]; folders: string[] }, changed: () => void): Promise<void> {
  if (!wishes.files.length && !wishes.folders.length) return;
  const many = wishes.files.length > 3;
  const total = wishes.files.reduce((n, w) => n + w.file.size, 0);
  const batch = many ? new Line(`Upload ${plural(wishes.files.length, "file")} to ${shown(to.path) || "the top folder"}`) : undefined;
  let sent = 0;
  let ended = 0;
  const problems: string[] = [];
  let always: Choice = "";
  let asking = Promise.resolve();
  try {
    for (const f of wishes.folders) await mkdir({ root: to.root, path: join(to.path, f) }, true);
  } catch (e) {
    batch?.end(e instanceof Error ? e.message : String(e), true);
    fail(e);
    return;
  }
  const choose = (name: string): Promise<Choice> => {
    const answer = asking.then(async (): Promise<Choice> => {
      if (always) return always;
      const all = h("input", { type: "checkbox" });
      const how = await dialog(`${name} is there already`, [h("p", {}, "Replace it with the file you upload? What is in it now will be lost."), h("label", { class: "check" }, all, "The same for all others of this upload")],
        [{ label: "Skip", value: "skip" }, { label: "Replace", value: "replace", kind: "danger" }]);
      const c = how === "replace" ? "replace" : "skip";
      if (all.checked) always = c;
      return c;
    });
    asking = answer.then(() => undefined);
    return answer;
  };
  const one = async (w: Wish): Promise<void> => {
    const place = { root: to.root, path: join(to.path, w.path) };
    const name = visible(shown(last(w.path)));
    const line = batch ?? new Line(`Upload ${name}`);
    const began = Date.now();
    try {
      await send(place, w.file, () => choose(name), line.signal, (n, offset) => {
        sent += n;
        const part = batch ? (total ? sent / total : ended / wishes.files.length) : w.file.size ? offset / w.file.size : 1;
        const seconds = (Date.now() - began) / 1000;
        line.at(batch ? `${ended} of ${wishes.files.length} files, ${size(sent)} of ${size(total)}` : `${size(offset)} of ${size(w.file.size)}${seconds > 1 ? `, ${size(Math.round(n > 0 ? offset / seconds : 0))}/s` : ""}`, part);
      }, (words) => line.at(words));
      if (!batch) line.end(`uploaded, ${size(w.file.size)}`);
    } catch (e) {
      const words = line.signal.aborted ? "canceled" : e instanceof Skipped ? "skipped" : e instanceof Error ? e.message : String(e);
      if (!batch) line.end(words, !(e instanceof Skipped));
      else if (!line.signal.aborted) problems.push(`${name}: ${words}`);
    }
    ended++;
    changed();
  };
  const queue = [...wishes.files];
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (let w = queue.shift(); w; w = queue.shift()) {
      if (batch?.signal.aborted) return;
      await one(w);
    }
  }));
  if (batch) {
    batch.end(batch.signal.aborted ? `canceled after ${plural(ended - problems.length, "file")}` : `${plural(ended - problems.length, "file")} uploaded`, batch.signal.aborted || problems.length > 0);
    if (problems.length) batch.list(problems);
  }
  changed();
}

class Skipped extends Error {}

// send sends one file in pieces. A piece that does not arrive is asked about and
// sent again, for some minutes; a file that was begun earlier goes on.
async function send(to: Place, file: File, exists: () => Promise<Choice>, signal: AbortSignal, moved: (n: number, offset: number) => void, waits: (words: string) => void): Promise<void> {
  const begin = (replace: boolean) => uploadBegin(to, file.size, file.lastModified, replace);
  let u = await begin(false).catch(async (e: unknown) => {
    if (!(e instanceof Refused) || e.kind !== "conflict") throw e;
    if (await exists() !== "replace") throw new Skipped("skipped");
    return begin(true);
  });
  let offset = u.offset;
  moved(offset, offset);
  let piece = 1 << 20;
  let failures = 0;
  try {
    while (!u.done) {
      signal.throwIfAborted();
      const began = performance.now();
      try {
        u = await uploadPiece(u.id, offset, file.slice(offset, offset + piece), signal);
        failures = 0;
      } catch (e) {
        signal.throwIfAborted();
        if (!(e instanceof Refused) || (e.kind !== "away" && e.kind !== "conflict" && e.kind !== "unavailable") || ++failures > 40) throw e;
        waits("Waiting for the connection…");
        await new Promise((r) => setTimeout(r, Math.min(15000, 500 * 2 ** Math.min(failures, 5))));
        u = await uploadStatus(u.id).catch(() => u);
      }
      moved(u.offset - offset, u.offset);
      offset = u.offset;
      // Pieces that take about a second: few requests, and progress that moves.
      const took = performance.now() - began;
      if (took < 500) piece = Math.min(piece * 2, 32 << 20);
      else if (took > 2000) piece = Math.max(piece / 2, 256 << 10);
    }
  } catch (e) {
    // A connection that stays away leaves what has arrived, to go on later.
    if (signal.aborted || !(e instanceof Refused) || e.kind !== "away") await uploadCancel(u.id).catch(() => undefined);
    throw e;
  }
}

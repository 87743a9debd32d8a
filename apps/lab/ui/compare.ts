// Two versions of a document beside each other, and for each cell that both people
// changed the choice which of them stays. Everything is shown as text: nothing of
// it has been trusted by anybody.
import { JSONExt, type JSONObject } from "@lumino/coreutils";
import { Widget } from "@lumino/widgets";

export type Choice = "mine" | "theirs" | "both";
export type Choices = Record<string, Choice>; // by the cell's ID; "" is the notebook itself

export interface Cell {
  id?: string;
  cell_type: string;
  source: string;
  metadata: JSONObject;
  outputs?: JSONObject[];
  execution_count?: number | null;
}

export interface Notebook {
  cells: Cell[];
  metadata: JSONObject;
  nbformat: number;
  nbformat_minor: number;
}

interface Conflict {
  cell: string;
  field: string;
  mine: unknown;
  theirs: unknown;
}

// Now is the answer of apps/lab/merge.go. content is there if both can be merged.
export interface Now {
  quire: { version: string; at: string; by: string | null; me: boolean };
  theirs?: Notebook | string;
  content?: Notebook;
  conflicts?: Conflict[];
  base?: boolean;
  why?: string; // it cannot be merged
}

export function whose(now: Now): string {
  return now.quire.me ? "what you saved elsewhere" : now.quire.by ? `${now.quire.by}’s version` : "the other version";
}

// contested are the cells that both people changed: in what they say, in their
// outputs or settings alone, or so that one deleted what the other changed.
export function contested(now: Now): { both: string[]; runs: string[]; lone: Map<string, "mine" | "theirs"> } {
  const both = new Set<string>();
  const runs = new Set<string>();
  const lone = new Map<string, "mine" | "theirs">();
  for (const c of now.conflicts ?? []) {
    if (c.field === "cell") lone.set(c.cell, c.mine ? "mine" : "theirs");
    const light = c.cell === "" || /^(outputs|execution_count|metadata)\b/.test(c.field);
    (light ? runs : both).add(c.cell);
  }
  runs.delete("");
  return { both: [...both], runs: [...runs].filter((id) => !both.has(id)), lone };
}

// sameCell compares two cells. Whether a page trusts one is not of the cell.
export function sameCell(a: Cell | undefined, b: Cell | undefined, trust = false): boolean {
  if (!a || !b) return a === b;
  const plain = (c: Cell): JSONObject => ({ ...c, metadata: { ...c.metadata, trusted: trust && c.metadata.trusted === true } } as unknown as JSONObject);
  return JSONExt.deepEqual(plain(a), plain(b));
}

export function element(tag: string, attributes: Record<string, string>, ...children: (Node | string)[]): HTMLElement {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) el.setAttribute(name, value);
  el.append(...children);
  return el;
}

const around = 3; // lines that are shown before and after what differs

// lines is a text without most of the beginning and the end that both have, with
// the lines marked that the other does not have between these.
function lines(text: string, other: string): HTMLElement[] {
  const a = text.split("\n");
  const b = other.split("\n");
  let from = 0;
  while (from < a.length && from < b.length && a[from] === b[from]) from++;
  let end = 0;
  while (end < a.length - from && end < b.length - from && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const others = new Set(b.slice(from, b.length - end));
  const first = Math.max(0, from - around);
  const last = Math.min(a.length, a.length - end + around);
  const out: HTMLElement[] = [];
  if (first > 0) out.push(element("span", { class: "quire-left-out" }, `… ${first} more\n`));
  for (let i = first; i < last; i++) out.push(element(i >= from && i < a.length - end && !others.has(a[i]!) ? "mark" : "span", {}, `${a[i]}\n`));
  if (last < a.length) out.push(element("span", { class: "quire-left-out" }, `… ${a.length - last} more\n`));
  return out;
}

function side(label: string, text: string | undefined, other = ""): HTMLElement {
  const content = text === undefined ? element("p", {}, "Deleted") : element("pre", { tabindex: "0", "aria-label": label, role: "group" }, ...lines(text, other));
  return element("div", {}, element("div", { class: "quire-whose" }, label), content);
}

function sides(theirs: string, a: string | undefined, b: string | undefined): HTMLElement {
  return element("div", { class: "quire-sides" }, side("Yours", a, b), side(theirs, b, a));
}

// said is what a cell has, as text.
function said(cell: Cell | undefined, settings = false): string | undefined {
  if (!cell) return undefined;
  const out = (cell.outputs ?? []).map((o) => {
    if (o.output_type === "stream") return String(o.text);
    if (o.output_type === "error") return `${o.ename}: ${o.evalue}`;
    const data = (o.data ?? {}) as JSONObject;
    return String(data["text/plain"] ?? "") || `[${Object.keys(data).join(", ")}]`;
  }).join("\n").trimEnd();
  return cell.source + (out && `\n\n→ ${out}`) + (settings ? `\n\n${JSON.stringify(cell.metadata, null, 1)}` : "");
}

export class Comparison extends Widget {
  constructor(mine: Notebook | string, now: Now) {
    super();
    this.addClass("quire-comparison");
    const theirs = now.quire.me ? "Saved elsewhere" : now.quire.by ? `${now.quire.by}’s` : "The other";
    if (now.content) this.cells(mine as Notebook, now as Now & { content: Notebook; theirs: Notebook }, theirs);
    else this.node.append(sides(theirs, textOf(mine), textOf(now.theirs ?? "")));
  }

  getValue(): Choices {
    const out: Choices = {};
    for (const input of this.node.querySelectorAll<HTMLInputElement>("input:checked")) out[input.dataset.cell ?? ""] = input.value as Choice;
    return out;
  }

  private cells(mine: Notebook, now: Now & { content: Notebook; theirs: Notebook }, theirs: string): void {
    const ours = new Map(mine.cells.map((c) => [c.id, c]));
    const others = new Map(now.theirs.cells.map((c) => [c.id, c]));
    const { both, runs, lone } = contested(now);
    const add = (heading: string, id: string, a: string | undefined, b: string | undefined, choices: [Choice, string][], chosen: Choice): void => {
      const parts = [element(choices.length ? "legend" : "h3", {}, heading), sides(theirs, a, b)];
      if (choices.length) {
        parts.push(element("div", { class: "quire-choice" }, ...choices.map(([value, label]) => {
          const input = element("input", { type: "radio", name: `quire-cell-${id}`, value, "data-cell": id }) as HTMLInputElement;
          input.checked = value === chosen;
          return element("label", {}, input, label);
        })));
      }
      this.node.append(element(choices.length ? "fieldset" : "section", {}, ...parts));
    };
    if (now.conflicts?.some((c) => c.cell === "")) {
      add("Settings of the notebook: changed by both", "", JSON.stringify(mine.metadata, null, 1), JSON.stringify(now.theirs.metadata, null, 1), [["mine", "Yours"], ["theirs", theirs]], "mine");
    }
    now.content.cells.forEach((cell, i) => {
      const id = cell.id ?? "";
      const a = ours.get(id);
      const b = others.get(id);
      const where = `Cell ${i + 1}`;
      const only = lone.get(id);
      if (!id || sameCell(a, b)) return;
      const [my, their] = said(a) === said(b) ? [said(a, true), said(b, true)] : [said(a), said(b)];
      if (only) {
        add(`${where}: changed by one, deleted by the other`, id, my, their, [[only, "Keep it"], [only === "mine" ? "theirs" : "mine", "Delete it"]], only);
      } else if (both.includes(id) || runs.includes(id)) {
        add(`${where}: changed by both`, id, my, their, [["mine", "Yours"], ["theirs", theirs], ["both", "Both"]], both.includes(id) ? "both" : "mine");
      } else {
        add(`${where}: ${sameCell(cell, a) ? "yours stays" : sameCell(cell, b) ? `${theirs} is taken over` : "merged"}`, id, my, their, [], "mine");
      }
    });
    if (!this.node.childElementCount) this.node.append(element("p", {}, "The cells are the same in another order, or without IDs to compare them by."));
  }
}

function textOf(content: Notebook | string): string {
  return typeof content === "string" ? content : JSON.stringify(content, null, 1);
}

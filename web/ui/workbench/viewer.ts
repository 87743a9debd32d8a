// Tabs for what is looked at rather than edited: pictures, tables, PDF, and what
// can only be downloaded.

import { ago, button, h, icon, size, visible } from "./dom";
import { last, type Place, raw, shown, type Stat } from "./wire";

export interface Viewer {
  place: Place;
  readonly panel: HTMLElement;
  readonly dirty: false;
  show(): void;
  focus(): void;
  close(): void;
}

function viewer(place: Place, panel: HTMLElement): Viewer {
  return {
    place, panel, dirty: false,
    show: () => { panel.hidden = false; },
    focus: () => panel.focus(),
    close: () => panel.remove(),
  };
}

function frame(...children: (Node | string)[]): HTMLElement {
  return h("section", { class: "panel viewer", role: "tabpanel", tabindex: "0" }, ...children);
}

function head(place: Place, words: string, ...more: (Node | null)[]): HTMLElement {
  return h("div", { class: "viewer-head" }, h("span", { class: "quiet" }, words), h("span", { class: "grow" }), ...more,
    h("a", { class: "button small", href: raw(place, true), download: "" }, "Download"));
}

export function picture(place: Place, now: Stat): Viewer {
  const name = visible(shown(last(place.path)));
  const words = h("span", {}, size(now.entry.s ?? 0));
  const image = h("img", { src: raw(place) + "&v=" + now.version, alt: `Picture ${name}` });
  image.addEventListener("load", () => { words.textContent = `${image.naturalWidth} × ${image.naturalHeight} · ${size(now.entry.s ?? 0)}`; });
  image.addEventListener("error", () => { words.textContent = "The browser cannot show this picture."; });
  const at = head(place, "");
  at.prepend(words);
  return viewer(place, frame(at, h("div", { class: "picture" }, image)));
}

export function pdf(place: Place, now: Stat): Viewer {
  const name = visible(shown(last(place.path)));
  return viewer(place, frame(head(place, `PDF · ${size(now.entry.s ?? 0)}`), h("iframe", { src: raw(place), title: `Document ${name}`, class: "document" })));
}

export function nothing(place: Place, now: Stat, why: string, asText?: () => void): Viewer {
  const e = now.entry;
  const list = h("dl", { class: "facts" });
  for (const [word, value] of [
    ["Size", `${(e.s ?? 0).toLocaleString("en-US")} bytes`], ["Changed", `${new Date(e.t).toLocaleString()} (${ago(e.t)})`],
    ["Owner", now.owner], ["Group", now.group], ["Path", now.full],
  ]) list.append(h("dt", {}, word!), h("dd", {}, visible(value!)));
  return viewer(place, frame(head(place, ""), h("div", { class: "empty inner" }, icon("file"), h("h2", {}, visible(shown(last(place.path)))), h("p", {}, why), list,
    asText ? h("p", {}, button("Open as text", asText)) : null)));
}

const maxRows = 1000;

// table shows the first rows of a CSV or TSV file. Cells are text, whatever is
// in them.
export async function table(place: Place, now: Stat, edit: () => void): Promise<Viewer> {
  const answer = await fetch(raw(place), { headers: { Range: `bytes=0-${(1 << 20) - 1}` } });
  if (!answer.ok && answer.status !== 416) throw new Error("The file cannot be read any more.");
  const bytes = answer.status === 416 ? new Uint8Array() : new Uint8Array(await answer.arrayBuffer());
  const whole = bytes.length >= (now.entry.s ?? 0);
  const text = new TextDecoder().decode(bytes).replace(/^\ufeff/, "");
  const rows = parse(text, separator(text, /\.tsv$/i.test(place.path)), maxRows + 2);
  if (!whole) rows.pop(); // its end may be missing
  const more = rows.length > maxRows + 1 || !whole;
  const shownRows = rows.slice(0, maxRows + 1);
  const wide = Math.max(0, ...shownRows.map((r) => r.length));
  const top = shownRows[0] ?? [];
  const columns = Array.from({ length: Math.min(wide, 500) }, (_, i) => top[i] ?? "");
  const t = h("table", { class: "cells" }, h("caption", { class: "unseen" }, `Table ${visible(shown(last(place.path)))}`),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "#"), ...columns.map((c, i) => h("th", { scope: "col" }, c || `Column ${i + 1}`)))));
  const body = h("tbody");
  shownRows.slice(1).forEach((r, i) => body.append(h("tr", {}, h("th", { scope: "row" }, String(i + 1)), ...columns.map((_, k) => {
    const cell = r[k] ?? "";
    return h("td", { class: /^-?[\d.,]+(e[-+]?\d+)?$/i.test(cell) ? "num" : undefined }, cell);
  }))));
  t.append(body);
  const words = `${more ? "The first " : ""}${Math.max(0, shownRows.length - 1).toLocaleString("en-US")} rows, ${wide} columns${wide > 500 ? " (500 shown)" : ""} · ${size(now.entry.s ?? 0)}`;
  const scroller = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, t);
  const panel = frame(head(place, words, button("Edit as text", edit, "button small")), scroller);
  panel.removeAttribute("tabindex");
  return { ...viewer(place, panel), focus: () => scroller.focus() };
}

function separator(text: string, tabs: boolean): string {
  if (tabs) return "\t";
  const line = text.slice(0, text.indexOf("\n") < 0 ? undefined : text.indexOf("\n"));
  const counts = [",", ";", "\t", "|"].map((s) => [s, line.split(s).length] as const);
  return counts.reduce((best, now) => now[1] > best[1] ? now : best)[0];
}

// parse reads quoted and unquoted cells (RFC 4180), at most so many rows.
export function parse(text: string, between: string, limit: number): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length && rows.length < limit; i++) {
    const c = text[i]!;
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') {
        cell += '"';
        i++;
      } else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === between) {
      row.push(cell);
      cell = "";
    } else if (c === "\n") {
      row.push(cell.endsWith("\r") ? cell.slice(0, -1) : cell);
      rows.push(row);
      row = [];
      cell = "";
    } else cell += c;
  }
  if (rows.length < limit && (cell !== "" || row.length)) rows.push([...row, cell]);
  return rows;
}

// Everything by keyboard: links say their key (data-key), / searches, ? shows
// the keys, Ctrl or Cmd K opens the palette.
import { all, get, make, one } from "./page";

const pause = 1200; // ms between the two keys of a sequence

export function keys(): void {
  let first = "";
  let timer = 0;
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      palette();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target as Element) || one("dialog[open]")) return;
    if (event.key === "/") {
      const find = one<HTMLInputElement>("#find");
      if (find) { event.preventDefault(); find.focus(); find.select(); }
      return;
    }
    if (event.key === "?") { event.preventDefault(); void help(); return; }
    if (event.key.length !== 1) return;
    const sequence = first ? `${first} ${event.key}` : event.key;
    window.clearTimeout(timer);
    first = "";
    const link = one<HTMLAnchorElement>(`a[data-key="${CSS.escape(sequence)}"]`);
    if (link) { event.preventDefault(); link.click(); return; }
    if (event.key === "g") {
      first = "g";
      timer = window.setTimeout(() => { first = ""; }, pause);
    }
  });
}

const typing = (target: Element): boolean => target.closest("input, textarea, select, [contenteditable]") !== null;

// over shows a dialog and removes it when it closes.
function over(label: string, ...children: Node[]): HTMLDialogElement {
  const dialog = make("dialog", { class: "over", "aria-label": label }, ...children);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// help shows the list of the help page, so there is only one.
async function help(): Promise<void> {
  try {
    const answer = await fetch("/help", { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const list = one("#keys", page);
    if (list) over("Keys", document.importNode(list, true));
  } catch { location.assign("/help#keys"); }
}

interface Hit { title: string; detail?: string; url: string; state?: string }
interface Found { projects: Hit[]; people: Hit[] }
interface Choice { title: string; detail: string; kind: string; go: () => void }

function palette(): void {
  if (one("dialog[open]") || !one("#find")) return;
  const input = make("input", {
    role: "combobox", "aria-label": "Go to a project, a person or an action", "aria-expanded": "true", "aria-controls": "palette-list",
    "aria-autocomplete": "list", placeholder: "Go to a project, a person or an action", autocomplete: "off", spellcheck: "false",
  });
  const list = make("div", { role: "listbox", id: "palette-list", "aria-label": "Results" });
  const dialog = over("Palette", input, list);
  const actions = ownActions();
  let choices: Choice[] = [];
  let at = 0;
  let running: AbortController | undefined;

  const draw = (): void => {
    at = Math.max(0, Math.min(at, choices.length - 1));
    list.replaceChildren(...choices.map((choice, i) => {
      const row = make("div", { role: "option", id: `palette-${i}`, "aria-selected": String(i === at) },
        make("span", {}, choice.title), make("span", { class: "meta" }, choice.detail), make("span", { class: "meta kind" }, choice.kind));
      row.addEventListener("click", () => { dialog.close(); choice.go(); });
      return row;
    }));
    if (choices.length === 0) list.append(make("p", { class: "meta" }, "Nothing has these words."));
    input.setAttribute("aria-activedescendant", choices.length ? `palette-${at}` : "");
    one(`#palette-${at}`, list)?.scrollIntoView({ block: "nearest" });
  };

  const look = async (): Promise<void> => {
    running?.abort();
    running = new AbortController();
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = actions.filter((action) => words.every((word) => action.title.toLowerCase().includes(word)));
    try {
      const found = await get<Found>(`/api/v1/search?q=${encodeURIComponent(input.value)}`, running.signal);
      const places = (hits: Hit[], kind: string): Choice[] => hits.map((hit) =>
        ({ title: hit.title, detail: hit.detail ?? "", kind: hit.state ?? kind, go: () => location.assign(hit.url) }));
      choices = [...places(found.projects, "project"), ...(words.length ? places(found.people, "person") : []), ...fitting];
    } catch (error) {
      if ((error as Error).name === "AbortError") return;
      choices = fitting;
    }
    at = 0;
    draw();
  };

  input.addEventListener("input", () => void look());
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      at = (at + (event.key === "ArrowDown" ? 1 : -1) + choices.length) % Math.max(1, choices.length);
      draw();
    } else if (event.key === "Enter") {
      event.preventDefault();
      const choice = choices[at];
      if (choice) { dialog.close(); choice.go(); }
    }
  });
  choices = actions;
  draw();
  void look();
}

// ownActions are what this page can do: its links, and its buttons outside of
// dangerous places.
function ownActions(): Choice[] {
  const found = new Map<string, Choice>();
  for (const link of all<HTMLAnchorElement>(".top a, .tabs a, .side a")) {
    const title = link.textContent?.trim() ?? "";
    if (title && !found.has(title)) found.set(title, { title, detail: link.dataset["key"] ?? "", kind: "page", go: () => link.click() });
  }
  for (const button of all<HTMLButtonElement>("main .app:not(:disabled), main .status form > .button")) {
    const title = (button.querySelector(".title")?.firstChild?.textContent ?? button.textContent ?? "").trim();
    if (title) found.set(`action ${title}`, { title: `Open ${title}`.replace(/^Open (Start|Stop|Reset)$/, "$1"), detail: "", kind: "action", go: () => button.click() });
  }
  return Array.from(found.values());
}

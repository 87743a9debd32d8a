// Small helpers to build pages from elements: text is always text.

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

type Child = Node | string | null | undefined | false;

// h makes an element. Attributes whose value is false are left out.
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Record<string, string | boolean | number | undefined> = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) e.setAttribute(name, "");
    else if (value !== false && value !== undefined) e.setAttribute(name, String(value));
  }
  for (const c of children) if (c) e.append(c);
  return e;
}

export function icon(name: string): HTMLElement {
  return h("i", { class: "icon icon-" + name, "aria-hidden": "true" });
}

export function button(label: string, then: () => void, kind = "button"): HTMLButtonElement {
  const b = h("button", { type: "button", class: kind }, label);
  b.addEventListener("click", then);
  return b;
}

export function say(words: string): void {
  byId("status").textContent = words;
}

// notice shows what went wrong until it is closed or something else is to say.
export function notice(words: string): void {
  const at = byId("notice");
  at.replaceChildren(h("span", { class: "words" }, words), button("Close", () => { at.hidden = true; }, ""));
  at.hidden = false;
}

export function quiet(): void {
  byId("notice").hidden = true;
}

export function fail(e: unknown): void {
  if (e instanceof DOMException && e.name === "AbortError") return;
  notice(e instanceof Error ? e.message : String(e));
}

export function plural(n: number, one: string, many = one + "s"): string {
  return `${n.toLocaleString("en-US")} ${n === 1 ? one : many}`;
}

export function size(n: number): string {
  if (n < 1000) return n + " B";
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let i = -1;
  do {
    n /= 1000;
    i++;
  } while (n >= 999.5 && i < units.length - 1);
  return `${n < 9.95 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

export function ago(at: number): string {
  const s = Math.round((Date.now() - at) / 1000);
  if (s < 10) return "just now";
  const f = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (s < 90) return f.format(-s, "second");
  if (s < 5400) return f.format(-Math.round(s / 60), "minute");
  if (s < 129600) return f.format(-Math.round(s / 3600), "hour");
  if (s < 2600000) return f.format(-Math.round(s / 86400), "day");
  return new Date(at).toLocaleDateString();
}

// visible makes a name fit for one line: what would not be seen becomes a sign.
export function visible(name: string): string {
  return name.replace(/[\u0000-\u001f\u007f]/g, (c) => String.fromCharCode(0x2400 + (c === "\u007f" ? 0x21 : c.charCodeAt(0))))
    .replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

// dialog shows a modal box until it is closed, and gives what closed it.
export function dialog(title: string, body: Child[], buttons: { label: string; value: string; kind?: string }[], check?: (value: string) => Promise<boolean> | boolean): Promise<string> {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const id = "box-title";
  const form = h("form", { method: "dialog" }, h("h2", { id }, title), ...body, problem);
  const row = h("div", { class: "buttons" });
  for (const b of buttons) row.append(h("button", { class: "button " + (b.kind ?? ""), value: b.value, formnovalidate: b.value === "" }, b.label));
  form.append(row);
  const box = h("dialog", { "aria-labelledby": id }, form);
  document.body.append(box);
  const before = document.activeElement;
  return new Promise((done) => {
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      const value = (e.submitter as HTMLButtonElement | null)?.value ?? buttons[buttons.length - 1]!.value;
      void (async () => {
        try {
          if (value !== "" && check && !await check(value)) return;
        } catch (err) {
          problem.textContent = err instanceof Error ? err.message : String(err);
          problem.hidden = false;
          return;
        }
        box.close(value);
      })();
    });
    box.addEventListener("close", () => {
      box.remove();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
      done(box.returnValue);
    });
    box.showModal();
    // Enter means the main button, wherever it stands.
    form.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && e.target instanceof HTMLInputElement && e.target.type === "text") {
        e.preventDefault();
        row.querySelector<HTMLButtonElement>(".main, .danger")?.click();
      }
    });
  });
}

export async function confirm(title: string, words: string, verb: string, kind = "danger"): Promise<boolean> {
  return await dialog(title, [h("p", {}, words)], [{ label: "Cancel", value: "" }, { label: verb, value: "ok", kind }]) === "ok";
}

// prompt asks for a name; then does something with it and stays open
// with the reason if that fails.
export async function prompt(title: string, label: string, value: string, verb: string, then: (text: string) => Promise<void>, help = ""): Promise<boolean> {
  const input = h("input", { type: "text", value, autocomplete: "off", spellcheck: "false", autofocus: true });
  const body = [h("label", {}, label, input), help ? h("p", { class: "quiet" }, help) : null];
  const dot = value.lastIndexOf(".");
  queueMicrotask(() => input.setSelectionRange(0, dot > 0 ? dot : value.length));
  const how = await dialog(title, body, [{ label: "Cancel", value: "" }, { label: verb, value: "ok", kind: "main" }], async () => {
    if (!input.value) throw new Error("A name is needed.");
    await then(input.value);
    return true;
  });
  return how === "ok";
}

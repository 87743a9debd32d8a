// Small helps in forms: where the mistake is, the rule while typing, names
// completed, Markdown seen before it is saved, addresses copied.
import { all, get, make, one, post, say } from "./page";

export function forms(): void {
  const mistake = one('[aria-invalid="true"]') ?? one("[data-focus]");
  mistake?.focus();
  one<HTMLFormElement>("form[data-auto]")?.requestSubmit();
  for (const input of all<HTMLInputElement>("input[data-rule]")) rule(input);
  for (const place of all("[data-echo]")) echo(place);
  for (const input of all<HTMLInputElement>("input[data-complete]")) complete(input);
  for (const field of all("[data-preview]")) preview(field);
  for (const button of all<HTMLButtonElement>("[data-copy]")) {
    button.hidden = false;
    copies(button, () => location.origin + location.pathname);
  }
  for (const box of all("pre.copy")) {
    const text = box.textContent ?? "";
    const button = make("button", { type: "button", class: "button quiet" }, "Copy");
    copies(button, () => text);
    box.append(button);
  }
  // A second click on a form that is on its way would do the thing twice.
  document.addEventListener("submit", (event) => {
    const form = event.target as HTMLFormElement;
    if (form.method !== "post" || form.target || form.matches("[data-themes]")) return;
    if (form.dataset["sent"]) event.preventDefault();
    form.dataset["sent"] = "yes";
  });
  window.addEventListener("pageshow", () => { for (const form of all<HTMLFormElement>("form[data-sent]")) delete form.dataset["sent"]; });
}

function rule(input: HTMLInputElement): void {
  const place = one(`#${input.id}-bad`);
  input.addEventListener("input", () => {
    const wrong = input.value !== "" && input.validity.patternMismatch;
    input.setCustomValidity("");
    if (place) place.textContent = wrong ? input.dataset["rule"] ?? "" : "";
    if (wrong) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  });
}

function echo(place: HTMLElement): void {
  const input = one<HTMLInputElement>(`#${place.dataset["echo"]}`);
  input?.addEventListener("input", () => { place.textContent = input.value || "…"; });
}

function complete(input: HTMLInputElement): void {
  const list = make("datalist", { id: `${input.id}-names` });
  input.after(list);
  input.setAttribute("list", list.id);
  let running: AbortController | undefined;
  input.addEventListener("input", async () => {
    running?.abort();
    running = new AbortController();
    if (!input.value) return;
    try {
      const names = await get<string[]>(`${input.dataset["complete"]}?prefix=${encodeURIComponent(input.value)}`, running.signal);
      list.replaceChildren(...names.map((name) => make("option", { value: name })));
    } catch { /* typed on, or away: the form works without */ }
  });
}

function preview(field: HTMLElement): void {
  const text = one<HTMLTextAreaElement>("textarea", field);
  if (!text) return;
  const write = make("button", { type: "button", role: "tab", "aria-selected": "true", id: "tab-write", "aria-controls": text.id }, "Write");
  const look = make("button", { type: "button", role: "tab", "aria-selected": "false", id: "tab-preview", "aria-controls": "preview", tabindex: "-1" }, "Preview");
  const tabs = make("div", { class: "tablist", role: "tablist", "aria-label": "Description" }, write, look);
  const page = make("div", { class: "prose panel", id: "preview", role: "tabpanel", "aria-labelledby": "tab-preview", tabindex: "0" });
  page.hidden = true;
  text.before(tabs);
  text.after(page);
  const choose = async (shown: boolean): Promise<void> => {
    write.setAttribute("aria-selected", String(!shown));
    look.setAttribute("aria-selected", String(shown));
    write.tabIndex = shown ? -1 : 0;
    look.tabIndex = shown ? 0 : -1;
    text.hidden = shown;
    page.hidden = !shown;
    if (!shown) return;
    try {
      const { html } = await post<{ html: string }>(field.dataset["preview"] ?? "", { text: text.value });
      page.innerHTML = html || "<p>Nothing to show yet.</p>"; // sanitized by the portal
    } catch { page.textContent = "The preview could not be made. Try again."; }
  };
  write.addEventListener("click", () => choose(false));
  look.addEventListener("click", () => choose(true));
  tabs.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = document.activeElement === write ? look : write;
    other.focus();
    void choose(other === look);
  });
}

function copies(button: HTMLButtonElement, text: () => string): void {
  if (!navigator.clipboard) { button.remove(); return; }
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    const before = Array.from(button.childNodes);
    button.replaceChildren("Copied");
    say("Copied");
    setTimeout(() => button.replaceChildren(...before), 1500);
  });
}

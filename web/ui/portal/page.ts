// What the islands share: finding elements, asking the portal, saying things.

export const all = <T extends Element = HTMLElement>(selector: string, root: ParentNode = document): T[] =>
  Array.from(root.querySelectorAll<T>(selector));

export const one = <T extends Element = HTMLElement>(selector: string, root: ParentNode = document): T | null =>
  root.querySelector<T>(selector);

// make builds an element: make("button", { type: "button" }, "Copy").
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Record<string, string> = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const token = (): string => one<HTMLMetaElement>('meta[name="quire-form"]')?.content ?? "";

export async function get<T>(url: string, signal?: AbortSignal): Promise<T> {
  const answer = await fetch(url, { headers: { Accept: "application/json" }, signal: signal ?? null });
  if (!answer.ok) throw new Error(String(answer.status));
  return await answer.json() as T;
}

export async function post<T>(url: string, body: unknown): Promise<T> {
  const answer = await fetch(url, {
    method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", Accept: "application/json", "Quire-Form": token() },
  });
  if (!answer.ok) throw new Error(String(answer.status));
  return await answer.json() as T;
}

// say tells people who listen instead of look.
export function say(text: string): void {
  const region = one("#say");
  if (region) region.textContent = text;
}

// The page's stream. The portal sends a part of the page whenever it changes;
// this puts it in place without disturbing whoever is at work in it.
import { all, make, one, say } from "./page";
import { tables } from "./tables";
import { times } from "./times";

interface Part { name: string; html: string; say?: string }

const longestWait = 30_000; // ms

export function live(): void {
  const address = document.body.dataset["live"];
  if (!address) return;
  const opened = new Map<string, boolean>(); // details that the person opened or closed
  let source: EventSource | undefined;
  let timer = 0;
  let failures = 0;
  let said = "";

  document.addEventListener("click", (event) => {
    const details = (event.target as Element).closest("summary")?.parentElement;
    if (details instanceof HTMLDetailsElement && details.dataset["keep"]) opened.set(details.dataset["keep"], !details.open);
  });

  const swap = (part: Part): void => {
    const place = one(`[data-part="${CSS.escape(part.name)}"]`);
    if (!place) return;
    if (part.say && part.say !== said) {
      if (said) say(part.say);
      said = part.say;
    }
    const fresh = make("div");
    fresh.innerHTML = part.html; // made by the portal's own templates
    for (const details of all<HTMLDetailsElement>("details[data-keep]", fresh)) {
      const wanted = opened.get(details.dataset["keep"] ?? "");
      if (wanted !== undefined) details.open = wanted;
    }
    if (fresh.innerHTML === place.innerHTML) return;
    const focus = place.contains(document.activeElement) ? describe(document.activeElement as HTMLElement) : undefined;
    place.replaceChildren(...Array.from(fresh.childNodes));
    tables(place);
    times(place);
    if (focus) one(focus, place)?.focus({ preventScroll: true });
  };

  const close = (): void => {
    window.clearTimeout(timer);
    source?.close();
    source = undefined;
  };

  const connect = (): void => {
    close();
    source = new EventSource(address);
    source.addEventListener("open", () => { failures = 0; });
    source.addEventListener("part", (event) => {
      const part = JSON.parse((event as MessageEvent<string>).data) as Part;
      // A button under a pressed finger must not vanish before the finger lifts.
      const pressed = one(`[data-part="${CSS.escape(part.name)}"] :active`);
      if (pressed) document.addEventListener("pointerup", () => setTimeout(swap, 50, part), { once: true });
      else swap(part);
    });
    source.addEventListener("over", () => { close(); location.reload(); });
    source.addEventListener("error", () => {
      close();
      // Not all pages at once when the portal comes back.
      const wait = Math.min(longestWait, 500 * 2 ** failures++) * (0.5 + Math.random());
      timer = window.setTimeout(connect, wait);
    });
  };

  // Browsers allow few connections to one host: a page nobody sees gives its own back.
  const look = (): void => { if (document.hidden) close(); else if (!source) connect(); };
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", look);
  look();
}

// describe finds the same element again after a swap.
function describe(element: HTMLElement): string | undefined {
  const key = element.dataset["focusKey"];
  if (key) return `[data-focus-key="${CSS.escape(key)}"]`;
  if (element.id) return `#${CSS.escape(element.id)}`;
  const href = element.getAttribute("href");
  if (href) return `a[href="${CSS.escape(href)}"]`;
  if (element.tagName === "SUMMARY") {
    const keep = element.parentElement?.dataset["keep"];
    if (keep) return `details[data-keep="${CSS.escape(keep)}"] > summary`;
  }
  return undefined;
}

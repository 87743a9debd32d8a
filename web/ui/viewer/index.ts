// Sets formulas and marks the lines that the address names. The page reads well
// without either.

// rangeOf reads "#L10" and "#L10-L20".
function rangeOf(hash: string): [number, number] | undefined {
  const found = /^#L(\d{1,7})(?:-L?(\d{1,7}))?$/.exec(hash);
  if (!found) return undefined;
  const from = Number(found[1]);
  const to = found[2] ? Number(found[2]) : from;
  return from <= to ? [from, to] : [to, from];
}

function mark(scroll: boolean): void {
  for (const line of document.querySelectorAll(".line.marked")) line.classList.remove("marked");
  const range = rangeOf(location.hash);
  if (!range) return;
  for (let n = range[0]; n <= Math.min(range[1], range[0] + 50_000); n++) {
    const line = document.getElementById(`L${n}`);
    if (!line) break;
    line.classList.add("marked");
  }
  if (scroll) document.getElementById(`L${range[0]}`)?.scrollIntoView({ block: "center" });
}

// With Shift a click on a number goes on from the line that is marked.
document.addEventListener("click", (event) => {
  const link = (event.target as Element).closest<HTMLAnchorElement>(".listing a.number");
  if (!link || !event.shiftKey) return;
  const marked = rangeOf(location.hash);
  const here = rangeOf(link.hash);
  if (!marked || !here) return;
  event.preventDefault();
  const [from, to] = [Math.min(marked[0], here[0]), Math.max(marked[0], here[0])];
  history.replaceState(null, "", from === to ? `#L${from}` : `#L${from}-L${to}`);
  mark(false);
});
addEventListener("hashchange", () => mark(true));
if (document.querySelector(".listing")) mark(true);

async function formulas(): Promise<void> {
  const found = document.querySelectorAll<HTMLElement>(".math");
  if (found.length === 0) return;
  const { default: katex } = await import("katex");
  for (const element of found) {
    const tex = element.textContent ?? "";
    try {
      katex.render(tex, element, {
        displayMode: element.classList.contains("display"),
        // A formula is somebody's text: no links, no classes, no endless macros.
        trust: false, strict: "ignore", throwOnError: true, maxExpand: 500, maxSize: 40,
      });
    } catch {
      element.textContent = tex; // readable as it was typed
      element.classList.add("unset");
    }
  }
}
void formulas();

// Below the bar of another origin: the bar shows and shares where we are.
if (window.parent !== window) {
  const place = (): void => {
    const path = location.pathname.replace(/^\/~[^/]*/, "") + location.search;
    window.parent.postMessage({ quire: "place", path, title: document.title }, "*");
  };
  place();
}

// Can this browser reach the origins of apps? A picture from one of them tells.
import { one } from "./page";

const patience = 6000; // ms

export function probe(): void {
  const section = one("[data-probe]");
  if (!section) return;
  const show = (state: "wait" | "good" | "bad"): void => {
    for (const s of ["wait", "good", "bad"]) {
      const line = one(`[data-probe-${s}]`, section);
      if (line) line.hidden = s !== state;
    }
    const fix = one("[data-probe-fix]", section);
    if (fix) fix.hidden = state !== "bad";
  };
  show("wait");
  const picture = new Image();
  const timer = setTimeout(() => { picture.onload = picture.onerror = null; show("bad"); }, patience);
  picture.onload = () => { clearTimeout(timer); show("good"); };
  picture.onerror = () => { clearTimeout(timer); show("bad"); };
  picture.referrerPolicy = "no-referrer";
  picture.src = section.dataset["probe"] ?? "";
}

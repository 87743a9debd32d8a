// Menus close by Escape and by a click elsewhere.
import { all } from "./page";

const kinds = "details[data-menu][open], details.confirm[open]";

export function menus(): void {
  document.addEventListener("click", (event) => {
    for (const menu of all<HTMLDetailsElement>(kinds)) if (!menu.contains(event.target as Node)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of all<HTMLDetailsElement>(kinds)) {
      menu.open = false;
      menu.querySelector("summary")?.focus();
    }
  });
}

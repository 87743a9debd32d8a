// The menu of actions: opened by the right button, by Shift+F10 or by its button,
// used by pointer or keyboard.

import { h, icon } from "./dom";

export interface Action {
  label: string;
  icon: string;
  keys?: string;
  off?: boolean;
  line?: boolean; // a line above
  do(): void;
}

export function openMenu(x: number, y: number, label: string, actions: Action[], back: HTMLElement): void {
  document.querySelector(".menu")?.remove();
  const menu = h("div", { class: "menu", role: "menu", "aria-label": label, tabindex: "-1" });
  const items = actions.map((a) => {
    const b = h("button", { type: "button", role: "menuitem", tabindex: "-1", class: a.line ? "line" : "", "aria-disabled": a.off ? "true" : undefined },
      icon(a.icon), h("span", {}, a.label), a.keys ? h("kbd", { "aria-hidden": "true" }, a.keys) : null);
    b.addEventListener("click", () => {
      if (a.off) return;
      close(true);
      a.do();
    });
    return b;
  });
  menu.append(...items);
  document.body.append(menu);
  const box = menu.getBoundingClientRect();
  menu.style.left = Math.max(4, Math.min(x, innerWidth - box.width - 4)) + "px";
  menu.style.top = Math.max(4, Math.min(y, innerHeight - box.height - 4)) + "px";
  items.find((b) => b.getAttribute("aria-disabled") !== "true")?.focus();

  const outside = (e: Event): void => {
    if (!menu.contains(e.target as Node)) close(false);
  };
  const close = (focus: boolean): void => {
    menu.remove();
    removeEventListener("pointerdown", outside, true);
    removeEventListener("blur", gone);
    if (focus) back.focus();
  };
  const gone = (): void => close(false);
  addEventListener("pointerdown", outside, true);
  addEventListener("blur", gone);
  menu.addEventListener("keydown", (e) => {
    const at = items.indexOf(document.activeElement as HTMLButtonElement);
    const go = (i: number): void => items[(i + items.length) % items.length]!.focus();
    switch (e.key) {
      case "ArrowDown": go(at + 1); break;
      case "ArrowUp": go(at - 1); break;
      case "Home": go(0); break;
      case "End": go(items.length - 1); break;
      case "Escape": case "Tab": close(true); break;
      default: {
        if (e.key.length !== 1 || e.key === " " || e.ctrlKey || e.metaKey) return;
        const next = [...items.slice(at + 1), ...items.slice(0, at + 1)].find((b) => b.querySelector("span")!.textContent!.toLowerCase().startsWith(e.key.toLowerCase()));
        next?.focus();
      }
    }
    e.preventDefault();
    e.stopPropagation();
  });
}

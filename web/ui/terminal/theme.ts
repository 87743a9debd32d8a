import type { ISearchDecorationOptions } from "@xterm/addon-search";
import type { ITheme } from "@xterm/xterm";

const light: ITheme = {
  background: "#ffffff", foreground: "#192023", cursor: "#0f6674", cursorAccent: "#ffffff",
  selectionBackground: "#bfe0e6", selectionInactiveBackground: "#d3e2e5",
  black: "#192023", red: "#b3261e", green: "#1d6f33", yellow: "#7a5600", blue: "#1f5fbf", magenta: "#8a2fa8", cyan: "#0b6b75", white: "#6b7280",
  brightBlack: "#59616e", brightRed: "#c93a2f", brightGreen: "#2a7d3f", brightYellow: "#8a6414", brightBlue: "#2f6fd0", brightMagenta: "#9a44b8", brightCyan: "#177983", brightWhite: "#3b424e",
};

const dark: ITheme = {
  background: "#121618", foreground: "#e4e9ea", cursor: "#6cc7d6", cursorAccent: "#121618",
  selectionBackground: "#23525d", selectionInactiveBackground: "#2f434a",
  black: "#3b424e", red: "#ff8a80", green: "#7fd48f", yellow: "#e5c46b", blue: "#7fb0ff", magenta: "#d79bf0", cyan: "#74d0da", white: "#d5d9e0",
  brightBlack: "#8b93a1", brightRed: "#ffa9a1", brightGreen: "#a0e3ac", brightYellow: "#f2d88e", brightBlue: "#a6c8ff", brightMagenta: "#e6bcf7", brightCyan: "#9be2e9", brightWhite: "#ffffff",
};

const system = matchMedia("(prefers-color-scheme: dark)");

export function theme(): ITheme {
  return system.matches ? dark : light;
}

// matchColors are those of the search; the text on them keeps its own color.
export function matchColors(): ISearchDecorationOptions {
  return system.matches
    ? { matchBackground: "#4f4216", matchBorder: "#8a7430", matchOverviewRuler: "#e5c46b", activeMatchBackground: "#8a4a10", activeMatchBorder: "#ffb36b", activeMatchColorOverviewRuler: "#ffb36b" }
    : { matchBackground: "#fbe9b0", matchBorder: "#c9a227", matchOverviewRuler: "#c9a227", activeMatchBackground: "#ffc58a", activeMatchBorder: "#b3530b", activeMatchColorOverviewRuler: "#b3530b" };
}

export function onThemeChange(then: () => void): void {
  system.addEventListener("change", then);
}

// What a person chose, kept in the browser.
export interface Settings {
  font: number; // px
  reader: boolean;
  clipboard: boolean; // programs may write it
}

const place = "quire.terminal";
export const fontRange = { least: 9, most: 28 };

export function loadSettings(): Settings {
  const s: Settings = { font: 14, reader: false, clipboard: false };
  try {
    const kept = JSON.parse(localStorage.getItem(place) ?? "{}") as Partial<Settings>;
    if (typeof kept.font === "number") s.font = Math.min(fontRange.most, Math.max(fontRange.least, Math.round(kept.font)));
    s.reader = kept.reader === true;
    s.clipboard = kept.clipboard === true;
  } catch {
    // Storage is off or holds something else: the defaults do.
  }
  return s;
}

export function saveSettings(s: Settings): void {
  try {
    localStorage.setItem(place, JSON.stringify(s));
  } catch {
    // They hold for this page then.
  }
}

// Times are relative and age while one looks; the exact one, in the reader's own
// zone, is on hover. The words are the same as the portal's.
import { all } from "./page";

const minute = 60_000, hour = 60 * minute, day = 24 * hour;

export function times(root: ParentNode): void {
  refresh(root);
  for (const counter of all("[data-elapsed]", root)) {
    counter.dataset["from"] = String(performance.now() - Number(counter.dataset["elapsed"]));
  }
  if (root === document) {
    window.setInterval(() => refresh(document), 20_000);
    window.setInterval(count, 200);
  }
}

function refresh(root: ParentNode): void {
  const now = Date.now();
  for (const element of all<HTMLTimeElement>("time[datetime]", root)) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime()) || at.getFullYear() < 1971) continue;
    const text = ago(at.getTime(), now);
    if (element.textContent !== text) element.textContent = text;
    element.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
  }
}

function count(): void {
  for (const counter of all("[data-elapsed][data-from]")) {
    const text = seconds((performance.now() - Number(counter.dataset["from"])) / 1000);
    if (counter.textContent !== text) counter.textContent = text;
  }
}

function seconds(s: number): string {
  if (s < 0.05) return "0 s";
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 100) return `${s.toFixed(0)} s`;
  return `${Math.floor(s / 60)} min ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
}

function ago(at: number, now: number): string {
  const past = now - at;
  if (past < -minute) return `in ${span(-past)}`;
  if (past < 45_000) return "just now";
  if (past < 14 * day) return `${span(past)} ago`;
  const date = new Date(at);
  const sameYear = date.getFullYear() === new Date(now).getFullYear();
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "long", ...(sameYear ? {} : { year: "numeric" }) });
}

function span(ms: number): string {
  if (ms < minute) return `${Math.round(ms / 1000)} s`;
  if (ms < hour) return `${Math.round(ms / minute)} min`;
  if (ms < 36 * hour) return `${Math.round(ms / hour)} h`;
  const days = Math.round(ms / day);
  return days === 1 ? "1 day" : `${days} days`;
}

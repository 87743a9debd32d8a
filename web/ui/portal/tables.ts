// Tables sort by a click on a heading, and long ones have a filter. Both stay as
// they were when the portal sends the table anew.
import { all, make, one } from "./page";

const long = 10; // rows from which a filter helps
const sorted = new Map<string, { column: number; down: boolean }>();
const filters = new Map<string, string>();

export function tables(root: ParentNode): void {
  for (const table of all<HTMLTableElement>("table[data-sort]", root)) dress(table);
}

function dress(table: HTMLTableElement): void {
  const region = table.closest<HTMLElement>("[aria-label]");
  const name = region?.getAttribute("aria-label") ?? "";
  all<HTMLTableCellElement>("th", table).forEach((head, column) => {
    if (!head.textContent?.trim() || one(".hidden", head)) return;
    const button = make("button", { type: "button" }, head.textContent.trim());
    button.addEventListener("click", () => {
      const before = sorted.get(name);
      sorted.set(name, { column, down: before?.column === column && !before.down });
      sort(table, name);
    });
    head.replaceChildren(button);
  });
  sort(table, name);
  const rows = table.tBodies[0]?.rows.length ?? 0;
  if (rows < long || !region) return;
  const input = make("input", { type: "search", class: "filter", placeholder: "Filter", "aria-label": `Filter ${name}` });
  input.value = filters.get(name) ?? "";
  input.addEventListener("input", () => { filters.set(name, input.value); filter(table, input.value); });
  region.before(input);
  filter(table, input.value);
}

function sort(table: HTMLTableElement, name: string): void {
  const by = sorted.get(name);
  const body = table.tBodies[0];
  if (!by || !body) return;
  const value = (row: HTMLTableRowElement): string => {
    const cell = row.cells[by.column];
    return cell?.dataset["v"] ?? cell?.textContent?.trim() ?? "";
  };
  const order = Array.from(body.rows).sort((a, b) => value(a).localeCompare(value(b), undefined, { numeric: true }));
  if (by.down) order.reverse();
  body.append(...order);
  all("th", table).forEach((head, i) => {
    if (i === by.column) head.setAttribute("aria-sort", by.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function filter(table: HTMLTableElement, text: string): void {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of Array.from(table.tBodies[0]?.rows ?? [])) {
    const has = row.textContent?.toLowerCase() ?? "";
    row.hidden = !words.every((word) => has.includes(word));
  }
}

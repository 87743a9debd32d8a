// The dialogs about who may do what: permissions, and sharing with one person.

import { button, dialog, h, plural, say, visible } from "./dom";
import { permissions, type Place, type Progress, type Rule, share, shown, last, work } from "./wire";

const bits = [["Read", 4], ["Write", 2], ["Execute", 1]] as const;

export async function permissionDialog(place: Place, top: string): Promise<boolean> {
  const now = await permissions(place);
  const folder = now.entry.k === "dir";
  const name = visible(place.path ? shown(last(place.path)) : top);
  const rows = h("tbody");
  const rules: { rule: Rule; row: HTMLElement }[] = [];
  let maskTouched = false;
  const off = !now.mine;

  const add = (rule: Rule, who: Node | string, removable: boolean): HTMLElement => {
    const row = h("tr", {}, h("th", { scope: "row" }, who));
    const label = (): string => rule.who === "user" || rule.who === "named" ? rule.name || "new entry" : rule.who;
    for (const [word, bit] of bits) {
      const box = h("input", { type: "checkbox", disabled: off, checked: (rule.perm & bit) !== 0, "aria-label": `${word}, ${label()}` });
      box.addEventListener("change", () => {
        rule.perm = box.checked ? rule.perm | bit : rule.perm & ~bit;
        if (rule.who === "mask") maskTouched = true;
        else widen();
        count();
      });
      row.append(h("td", {}, box));
    }
    const end = h("td");
    if (removable && !off) {
      const x = button("Remove", () => {
        rules.splice(rules.findIndex((r) => r.row === row), 1);
        row.remove();
        widen();
        count();
      }, "button small");
      x.setAttribute("aria-label", `Remove ${label()}`);
      end.append(x);
    }
    row.append(end);
    rules.push({ rule, row });
    return row;
  };

  // widen lets the mask follow the entries, unless it was set by hand.
  const widen = (): void => {
    const mask = rules.find((r) => r.rule.who === "mask");
    if (!mask || maskTouched) return;
    mask.rule.perm = rules.filter((r) => ["user", "named", "group"].includes(r.rule.who)).reduce((p, r) => p | r.rule.perm, 0);
    mask.row.querySelectorAll("input").forEach((box, i) => { box.checked = (mask.rule.perm & bits[i]![1]) !== 0; });
  };

  const group = h("input", { type: "text", value: now.group, disabled: off, "aria-label": "Group", autocomplete: "off", spellcheck: "false" });
  const word = (a: string, b: Node | string): Node => h("span", { class: "who" }, h("b", {}, a), " ", b);
  const order = ["owner", "group", "other", "mask", "user", "named"];
  for (const rule of [...now.rules].sort((a, b) => order.indexOf(a.who) - order.indexOf(b.who))) {
    switch (rule.who) {
      case "owner": rows.append(add(rule, word("Owner", visible(now.owner)), false)); break;
      case "group": rows.append(add(rule, word("Group", group), false)); break;
      case "other": rows.append(add(rule, word("Others", ""), false)); break;
      case "mask": rows.append(add(rule, word("Mask", "the most that group and entries get"), false)); break;
      default: rows.append(add(rule, word(rule.who === "user" ? "User" : "Group", visible(rule.name ?? "")), true));
    }
  }

  const kind = h("select", { "aria-label": "Kind of the new entry" }, h("option", { value: "user" }, "User"), h("option", { value: "named" }, "Group"));
  const who = h("input", { type: "text", "aria-label": "Name of the new entry", placeholder: "name", autocomplete: "off", spellcheck: "false" });
  const addRow = h("div", { class: "add", hidden: off }, kind, who, button("Add", () => {
    if (!who.value.trim()) {
      who.focus();
      return;
    }
    const rule: Rule = { who: kind.value as "user" | "named", name: who.value.trim(), perm: folder ? 5 : 4 };
    rows.append(add(rule, word(rule.who === "user" ? "User" : "Group", visible(rule.name!)), true));
    who.value = "";
    if (!rules.some((r) => r.rule.who === "mask")) rows.append(add({ who: "mask", perm: 0 }, word("Mask", "the most that group and entries get"), false));
    widen();
    count();
  }, "button small"));

  who.addEventListener("keydown", (e) => {
    if (e.key !== "Enter") return;
    e.preventDefault();
    e.stopPropagation();
    addRow.querySelector("button")!.click();
  });

  const inherit = h("input", { type: "checkbox", disabled: off, checked: now.inherit });
  const recursive = h("input", { type: "checkbox", disabled: off });
  const preview = h("p", { class: "quiet", role: "status" });
  const details = h("div");
  const body = (p: boolean): unknown => ({
    root: place.root, path: place.path, rules: rules.map((r) => r.rule), group: group.value.trim() === now.group ? "" : group.value.trim(), inherit: inherit.checked, recursive: recursive.checked, preview: p,
  });
  let counting: AbortController | undefined;
  const forget = (): void => {
    counting?.abort();
    preview.textContent = "";
    details.replaceChildren();
  };
  // count says what the change, as it stands now, would reach; an older count ends.
  const count = (): void => {
    forget();
    if (!recursive.checked) return;
    const { signal } = counting = new AbortController();
    preview.textContent = "Counting…";
    void work("permissions", body(true), (p) => {
      if (!signal.aborted) preview.textContent = `Counting… ${p.items}`;
    }, signal).then((p) => {
      if (signal.aborted) return;
      preview.textContent = `${plural(p.items, "item")} will change${p.failed ? `; ${plural(p.failed, "item")} cannot, because only their owners can` : ""}.`;
      if (p.errors?.length) details.replaceChildren(list(p));
    }, (e: unknown) => {
      if (!signal.aborted) preview.textContent = e instanceof Error ? e.message : String(e);
    });
  };
  recursive.addEventListener("change", count);
  group.addEventListener("input", forget);
  group.addEventListener("change", count);

  const how = await dialog(`Permissions of ${name}`, [
    off ? h("p", { class: "fact" }, `It belongs to ${now.owner}, who alone can change this.`) : null,
    h("div", { class: "scroll" }, h("table", { class: "rights" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Who"), ...bits.map(([w]) => h("th", { scope: "col" }, w)), h("td"))), rows)),
    addRow,
    folder && !off ? h("label", { class: "check" }, inherit, "What is made in this folder from now on begins with the same") : null,
    folder && !off ? h("label", { class: "check" }, recursive, "Change everything in this folder too; files become executable only where they are already") : null,
    preview, details,
  ], off ? [{ label: "Close", value: "", kind: "main" }] : [{ label: "Cancel", value: "" }, { label: "Apply", value: "ok", kind: "main" }], async () => {
    forget();
    const end = recursive.checked
      ? await work("permissions", body(false), (p) => { preview.textContent = `${plural(p.items, "item")} changed…`; })
      : await plain(body(false));
    say(`${plural(end.items, "item")} changed.`);
    if (end.failed) {
      preview.textContent = `${plural(end.items, "item")} changed; ${plural(end.failed, "item")} could not be.`;
      details.replaceChildren(list(end));
      return false;
    }
    return true;
  });
  counting?.abort();
  return how === "ok";
}

async function plain(body: unknown): Promise<Progress> {
  return await work("permissions", body, () => undefined);
}

function list(p: Progress): HTMLElement {
  return h("details", {}, h("summary", {}, plural(p.failed, "item that cannot change", "items that cannot change")), h("ul", { class: "problems" }, ...(p.errors ?? []).map((e) => h("li", {}, e))));
}

// shareDialog lets one person outside of the team reach a file or folder.
export async function shareDialog(place: Place): Promise<boolean> {
  const name = visible(shown(last(place.path)));
  const who = h("input", { type: "text", autocomplete: "off", spellcheck: "false", autofocus: true });
  const write = h("input", { type: "checkbox" });
  let said: { full: string; failed: number; errors?: string[] } | undefined;
  const how = await dialog(`Share ${name}`, [
    h("p", {}, "With somebody who is not in the team. They reach this and nothing else here, and your home directory stays closed."),
    h("label", {}, "Account name", who), h("label", { class: "check" }, write, "They may change it too"),
  ], [{ label: "Cancel", value: "" }, { label: "Share", value: "ok", kind: "main" }], async () => {
    said = await share(place, who.value.trim(), write.checked);
    return true;
  });
  if (how !== "ok" || !said) return false;
  const path = h("input", { type: "text", readonly: true, value: said.full, "aria-label": "Path to give them" });
  await dialog(`${name} is shared with ${who.value.trim()}`, [
    h("p", {}, "Give them this path. In their own Workbench they choose Show directories and enter it."), path,
    said.failed ? h("p", { class: "fact" }, `${plural(said.failed, "item")} inside could not be shared, because they belong to others.`) : null,
    said.errors?.length ? h("ul", { class: "problems" }, ...said.errors.map((e) => h("li", {}, e))) : null,
  ], [{ label: "Copy the path", value: "copy" }, { label: "Close", value: "", kind: "main" }], async (value) => {
    if (value === "copy") {
      path.select();
      await navigator.clipboard.writeText(path.value);
      say("The path is copied.");
    }
    return value !== "copy";
  });
  return true;
}

// Two people save the same file. JupyterLab asks whether to overwrite or to load
// what is there; here the server says who it was, and a notebook is merged cell by
// cell (POST BASE/lab/api/merge/PATH, see merge.go). Nothing is lost either way: the
// server keeps what a save replaces.
import type { JupyterFrontEndPlugin } from "@jupyterlab/application";
import { Dialog, showDialog } from "@jupyterlab/apputils";
import { URLExt } from "@jupyterlab/coreutils";
import { Context, type DocumentRegistry } from "@jupyterlab/docregistry";
import type { INotebookContent, IOutput } from "@jupyterlab/nbformat";
import type { INotebookModel } from "@jupyterlab/notebook";
import { type Contents, type ServiceManager, ServerConnection } from "@jupyterlab/services";
import { Widget } from "@lumino/widgets";

interface Clash {
  cell: string;
  field: string;
  mine: unknown;
  theirs: unknown;
}

interface Merged {
  content: INotebookContent;
  conflicts: Clash[];
  quire: { version: string; at: string; me: boolean; by: string };
}

type Options = Partial<Contents.IModel>;
type SharedNotebook = INotebookModel["sharedModel"];
type ISharedCodeCell = Extract<SharedNotebook["cells"][number], { cell_type: "code" }>;

// Contexts whose question stands open.
const asked = new WeakSet<object>();

// What a save may say of what it replaces, in words of ours and of the contents API.
const save = async (services: ServiceManager.IManager, path: string, options: Options, seen: object): Promise<Contents.IModel> => {
  const saved = await services.contents.save(path, { ...options, ...seen });
  const now = await services.contents.get(path, { content: false, hash: true });
  return { ...saved, hash: now.hash, hash_algorithm: now.hash_algorithm };
};

const canceled = (): Error => Object.assign(new Error("Cancel"), { name: "ModalCancelError" });

const words = (value: unknown): string => {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((v) => typeof v === "string")) return value.join("");
  const cell = value as { source?: unknown };
  return cell.source === undefined ? JSON.stringify(value, null, 1) : words(cell.source);
};

// differing cuts away the lines that two texts begin and end with alike.
export function differing(a: string, b: string): [string, string] {
  const x = a.split("\n");
  const y = b.split("\n");
  let begin = 0;
  while (begin < x.length && begin < y.length && x[begin] === y[begin]) begin++;
  let end = 0;
  while (end < x.length - begin && end < y.length - begin && x[x.length - 1 - end] === y[y.length - 1 - end]) end++;
  return [x.slice(begin, x.length - end).join("\n"), y.slice(begin, y.length - end).join("\n")];
}

function element(tag: string, text: string, name = ""): HTMLElement {
  const el = document.createElement(tag);
  el.textContent = text;
  if (name) el.className = name;
  return el;
}

// beside shows what differs, mine and theirs.
function beside(mine: string, theirs: string, by: string): HTMLElement {
  const both = element("div", "", "quire-beside");
  const limit = (s: string): string => s.length > 20_000 ? s.slice(0, 20_000) + "\n…" : s || "(nothing)";
  for (const [title, text] of [["Mine", mine], [by, theirs]] as const) {
    const side = element("div", "");
    side.append(element("h3", title), element("pre", limit(text)));
    both.append(side);
  }
  return both;
}

// settle brings a notebook's model to what was merged, touching only cells that
// differ: the others keep their outputs, their scroll and the reader's place. A cell
// that this person trusts would run what comes with somebody else's outputs, so
// whether it is trusted is settled before they come, as the server says.
function settle(notebook: INotebookModel, to: INotebookContent): void {
  const model = notebook.sharedModel;
  to.cells.forEach((cell, i) => {
    const id = cell["id"] as string | undefined;
    const at = id ? model.cells.findIndex((c) => c.getId() === id) : -1;
    if (at < 0) {
      model.insertCell(i, cell as never);
      return;
    }
    if (at !== i) model.moveCell(at, i);
    const now = model.cells[i]!;
    if (settled(now.toJSON()) === settled(cell)) return;
    if (now.cell_type !== cell.cell_type) {
      model.deleteCell(i);
      model.insertCell(i, cell as never);
      return;
    }
    now.setMetadata(cell.metadata as never);
    if (now.getSource() !== words(cell.source)) now.setSource(words(cell.source));
    if (now.cell_type !== "code") return;
    const code = now as ISharedCodeCell;
    const outputs = cell["outputs"] as IOutput[];
    if (JSON.stringify(code.getOutputs()) === JSON.stringify(outputs)) return;
    notebook.cells.get(i).trusted = cell.metadata["trusted"] === true;
    code.setOutputs(outputs);
    code.execution_count = cell["execution_count"] as number | null;
  });
  while (model.cells.length > to.cells.length) model.deleteCell(model.cells.length - 1);
  model.setMetadata(to.metadata);
}

// settled is a cell for comparison: the same keys in the same order, text as one.
function settled(cell: object): string {
  const c = { ...cell } as Record<string, unknown>;
  c["source"] = words(c["source"]);
  return JSON.stringify(Object.entries(c).sort(([a], [b]) => a < b ? -1 : 1));
}

// other is whose the state on disk is, for headings.
const other = (merged: Merged | undefined): string => merged?.quire.me ? "The other page" : merged?.quire.by ?? "Theirs";

// choose asks, for every place that both changed, whose is to stay.
async function choose(merged: Merged): Promise<boolean> {
  const clashes = merged.conflicts;
  const box = new Widget();
  box.addClass("quire-clashes");
  const picks = clashes.map((clash, i) => {
    const part = document.createElement("fieldset");
    const what = clash.field === "cell" ? "One of you deleted this cell, the other changed it" : `Both changed ${clash.field === "source" ? "this cell" : clash.field}`;
    part.append(element("legend", what));
    const [mine, theirs] = differing(words(clash.mine), words(clash.theirs));
    part.append(beside(mine, theirs, other(merged)));
    const inputs = ["Keep mine", merged.quire.me ? "Take the other" : `Take ${merged.quire.by}’s`].map((label, n) => {
      const line = element("label", "");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: `quire-clash-${i}`, checked: n === 0 });
      line.append(input, " " + label);
      part.append(line);
      return input;
    });
    box.node.append(part);
    return inputs[1]!;
  });
  const answer = await showDialog({ title: "What you both changed", body: box, buttons: [Dialog.cancelButton(), Dialog.okButton({ label: "Merge" })] });
  if (!answer.button.accept) return false;
  picks.forEach((theirs, i) => {
    if (theirs.checked) take(merged.content, clashes[i]!);
  });
  return true;
}

// take puts their side of a clash into the merged notebook.
function take(content: INotebookContent, clash: Clash): void {
  const at = content.cells.findIndex((c) => c["id"] === clash.cell);
  if (clash.field === "cell") {
    if (at < 0) content.cells.push(clash.theirs as never);
    else if (clash.theirs === null) content.cells.splice(at, 1);
    else content.cells[at] = clash.theirs as never;
    return;
  }
  let target = (clash.cell ? content.cells[at] : content) as Record<string, unknown> | undefined;
  const keys = clash.field.split(".");
  const last = keys.pop()!;
  for (const key of keys) target = target?.[key] as Record<string, unknown> | undefined;
  if (!target) return;
  if (clash.theirs === null || clash.theirs === undefined) delete target[last];
  else target[last] = clash.theirs;
  // Whether theirs can be trusted only the server knows, and it was about mine.
  if (last === "outputs") (target["metadata"] as Record<string, unknown>)["trusted"] = false;
}

// conflict is called by JupyterLab (build/labpatch.go) when a file that is to be
// saved is not what it was. It resolves to what is saved then.
async function conflict(services: ServiceManager.IManager, context: DocumentRegistry.Context & { saveAs(): Promise<void> }, options: Options, about: Contents.IModel): Promise<Contents.IModel> {
  const { path, model } = context;
  const hash = context.contentsModel?.hash ?? "";
  const name = path.slice(path.lastIndexOf("/") + 1);
  const isNotebook = options.type === "notebook" && !path.includes(":");

  const merge = async (): Promise<Merged> => {
    const settings = services.serverSettings;
    const body = JSON.stringify({ base: hash ? `seen-${hash.slice(0, 32)}` : "", mine: model.toJSON() });
    const answer = await ServerConnection.makeRequest(URLExt.join(settings.baseUrl, "lab/api/merge", URLExt.encodeParts(path)), { method: "POST", body }, settings);
    if (!answer.ok) throw await ServerConnection.ResponseError.create(answer);
    return await answer.json() as Merged;
  };
  const finish = async (merged: Merged): Promise<Contents.IModel> => {
    settle(model as unknown as INotebookModel, merged.content);
    return save(services, path, { ...options, content: model.toJSON() as never }, { quire: { version: merged.quire.version } });
  };

  let said = `“${name}” was changed by somebody else since it was opened or saved here.`;
  let merged: Merged | undefined;
  if (isNotebook) {
    merged = await merge().catch(() => undefined);
    if (merged?.quire.me) {
      // One's own: another page of the same person, or cells that ran while this page
      // was away. What they printed is here as well, or newer.
      const serious = merged.conflicts.filter((c) => !["outputs", "execution_count"].includes(c.field));
      if (!serious.length) return finish(merged);
    }
    if (merged) said = `${merged.quire.me ? "You" : merged.quire.by} changed this notebook at ${new Date(merged.quire.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}${merged.quire.me ? ", in another page" : ""}.`;
  } else if (hash) {
    // The server says who it was when it refuses, and lets what is the same pass.
    try {
      return await save(services, path, options, { hash });
    } catch (e) {
      if (!(e instanceof ServerConnection.ResponseError) || e.response.status !== 409) throw e;
      said = e.message;
    }
  }

  for (;;) {
    const by = other(merged);
    const buttons = [Dialog.cancelButton(), Dialog.createButton({ label: "Compare", actions: ["compare"] }), Dialog.createButton({ label: "Save as…", actions: ["as"] }),
      Dialog.createButton({ label: "Load theirs", actions: ["revert"] }), Dialog.warnButton({ label: "Overwrite", actions: ["overwrite"] })];
    if (merged) buttons.push(Dialog.okButton({ label: "Merge", actions: ["merge"] }));
    const answer = await showDialog({ title: `Save ${name}`, body: new Widget({ node: element("p", `${said} What is replaced is kept, as one of the ${isNotebook ? "notebook" : "file"}’s earlier states.`, "quire-ask") }), buttons, defaultButton: buttons.length - 1 });
    const [action] = answer.button.actions;
    if (context.isDisposed || !answer.button.accept && !action) throw canceled();
    if (action === "compare") {
      const theirs = await services.contents.get(path, { content: true });
      const text = (v: unknown): string => typeof v === "string" ? v : ((v as INotebookContent).cells ?? []).map((c) => words(c.source)).join("\n\n");
      const [a, b] = differing(text(isNotebook ? model.toJSON() : options.content), text(theirs.content));
      await showDialog({ title: `What differs in ${name}`, body: new Widget({ node: beside(a, b, by) }), buttons: [Dialog.okButton({ label: "Back" })] });
      continue;
    }
    if (action === "overwrite") return save(services, path, options, {});
    if (action === "revert") {
      await context.revert();
      return about;
    }
    if (action === "as") {
      await context.saveAs();
      throw canceled(); // what JupyterLab wanted to save is not to be
    }
    if (action === "merge") {
      merged = await merge(); // again: it may have changed while the question stood there
      if (merged.conflicts.length && !await choose(merged)) continue;
      return finish(merged);
    }
    throw canceled();
  }
}

export const conflicts: JupyterFrontEndPlugin<void> = {
  id: "quire:conflicts",
  description: "Says who changed a file that is to be saved, and merges notebooks.",
  autoStart: true,
  activate: (app) => {
    (Context as unknown as { conflict: unknown }).conflict = async (context: DocumentRegistry.Context, options: Options, about: Contents.IModel) => {
      // JupyterLab saves by itself too; one question at a time is enough.
      if (asked.has(context)) throw Object.assign(new Error("Modal is already displayed"), { name: "ModalDuplicateError" });
      asked.add(context);
      try {
        return await conflict(app.serviceManager, context as never, options, about);
      } finally {
        asked.delete(context);
      }
    };
  },
};

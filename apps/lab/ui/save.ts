// What JupyterLab asks when a file is not the one that the page knows any more:
// ours says who changed it and when, compares, and merges notebooks by cell.
//
// It asks POST BASE/lab/api/merge/PATH (apps/lab/merge.go), which writes nothing:
// the page shows the result and saves it, if it still is the same file by then.
import type { JupyterFrontEndPlugin } from "@jupyterlab/application";
import { Dialog, showDialog } from "@jupyterlab/apputils";
import { URLExt } from "@jupyterlab/coreutils";
import { Context, type DocumentRegistry } from "@jupyterlab/docregistry";
import type { INotebookContent, IOutput } from "@jupyterlab/nbformat";
import type { INotebookModel } from "@jupyterlab/notebook";
import { type Contents, type ServiceManager, ServerConnection } from "@jupyterlab/services";
import { Widget } from "@lumino/widgets";

// A Clash is a place that both changed. The merged notebook has mine there.
interface Clash {
  cell: string; // its ID; "" for the notebook
  field: string;
  path: string[] | null; // null if one deleted the cell that the other changed
  mine: unknown;
  theirs: unknown;
}

interface About {
  version: string;
  at: string;
  me: boolean;
  by: string | null;
}

interface Merged {
  content: INotebookContent;
  conflicts: Clash[];
  quire: About;
}

type Options = Partial<Contents.IModel>;
type SharedNotebook = INotebookModel["sharedModel"];
type ISharedCodeCell = Extract<SharedNotebook["cells"][number], { cell_type: "code" }>;

type OnDisk = Contents.IModel & { quire?: Partial<About> };

// What we use of a document's context, some of which is its own business.
interface Document {
  path: string;
  isDisposed: boolean;
  contentsModel: Contents.IModel | null;
  model: DocumentRegistry.IModel;
  revert(): Promise<void>;
  saveAs(): Promise<void>;
  _manager: ServiceManager.IManager;
  _conflictModalIsOpen: boolean;
}

// save writes if the file still has a version, and says what it is then.
async function save(services: ServiceManager.IManager, path: string, options: Options, version: string | undefined): Promise<Contents.IModel> {
  const saved = await services.contents.save(path, { ...options, ...(version ? { quire: { version } } : {}) });
  const { hash, hash_algorithm } = await services.contents.get(path, { content: false, hash: true });
  return { ...saved, hash, hash_algorithm } as Contents.IModel;
}

const named = (name: string, message: string): Error => Object.assign(new Error(message), { name });

const words = (value: unknown): string => {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((v) => typeof v === "string")) return value.join("");
  const cell = value as { source?: unknown };
  return cell.source === undefined ? JSON.stringify(value, null, 1) : words(cell.source);
};

// differing cuts away the lines that two texts begin and end with alike.
function differing(a: string, b: string): [string, string] {
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
const other = (about: Partial<About> | undefined): string => about?.me ? "The other page" : about?.by ?? "Theirs";

// choose asks, for every place that both changed, whose is to stay.
async function choose(merged: Merged): Promise<boolean> {
  const clashes = merged.conflicts;
  const box = new Widget();
  box.addClass("quire-clashes");
  const picks = clashes.map((clash, i) => {
    const part = document.createElement("fieldset");
    const what = clash.path === null ? "One of you deleted this cell, the other changed it" : `Both changed ${clash.field === "source" ? "this cell" : clash.field}`;
    part.append(element("legend", what));
    const [mine, theirs] = differing(words(clash.mine), words(clash.theirs));
    part.append(beside(mine, theirs, other(merged.quire)));
    const inputs = ["Keep mine", merged.quire.me || !merged.quire.by ? "Take the other" : `Take ${merged.quire.by}’s`].map((label, n) => {
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
    (theirs.checked ? take : keep)(merged.content, clashes[i]!);
  });
  return true;
}

// take puts their side of a clash into the merged notebook.
function take(content: INotebookContent, clash: Clash): void {
  const at = content.cells.findIndex((c) => c["id"] === clash.cell);
  if (clash.path === null) {
    if (clash.theirs === null) content.cells.splice(at, at < 0 ? 0 : 1);
    else if (at < 0) content.cells.push(clash.theirs as never);
    else content.cells[at] = clash.theirs as never;
    return;
  }
  let into = (clash.cell ? content.cells[at] : content) as Record<string, unknown> | undefined;
  for (const key of clash.path.slice(0, -1)) into = into?.[key] as Record<string, unknown> | undefined;
  const last = clash.path.at(-1);
  if (!into || last === undefined) return;
  if (clash.theirs === null || clash.theirs === undefined) delete into[last];
  else into[last] = clash.theirs;
  // Whether theirs can be trusted only the server knows, and it was about mine.
  if (clash.field === "outputs") (into["metadata"] as Record<string, unknown>)["trusted"] = false;
}

// keep puts my side of it: where I deleted the cell, the merged notebook has theirs.
function keep(content: INotebookContent, clash: Clash): void {
  if (clash.path === null && clash.mine === null) content.cells = content.cells.filter((c) => c["id"] !== clash.cell);
}

function who(about: Partial<About> | undefined, what: string): string {
  const at = about?.at ? ` at ${new Date(about.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}` : "";
  return `${about?.me ? "You" : about?.by ?? "Somebody"} changed this ${what}${at}${about?.me ? ", elsewhere" : ""}.`;
}

// ask is called when a file that is to be saved is not what it was. It resolves to
// what is saved then.
async function ask(doc: Document, onDisk: OnDisk, options: Options): Promise<Contents.IModel> {
  const { path, model, _manager: services } = doc;
  const name = path.slice(path.lastIndexOf("/") + 1);
  const isNotebook = options.type === "notebook";
  const what = isNotebook ? "notebook" : "file";

  const merge = async (): Promise<Merged> => {
    const server = services.serverSettings;
    const at = URLExt.join(server.baseUrl, "lab/api/merge", URLExt.encodeParts(services.contents.localPath(path)));
    const body = JSON.stringify({ base: doc.contentsModel?.hash ?? "", mine: model.toJSON() });
    const answer = await ServerConnection.makeRequest(at, { method: "POST", body }, server);
    if (!answer.ok) throw await ServerConnection.ResponseError.create(answer);
    return await answer.json() as Merged;
  };
  const finish = (merged: Merged): Promise<Contents.IModel> => {
    if (doc.isDisposed) throw new Error("Disposed");
    settle(model as unknown as INotebookModel, merged.content);
    return save(services, path, { ...options, content: model.toJSON() as never }, merged.quire.version);
  };

  if (isNotebook && onDisk.quire?.me) {
    // One's own: another page of the same person, or cells that ran while this page
    // was away. What they printed is here as well, or newer.
    const merged = await merge().catch(() => undefined);
    if (merged?.quire.me && merged.conflicts.every((c) => ["outputs", "execution_count"].includes(c.field))) return finish(merged);
  }
  for (;;) {
    const buttons = [Dialog.cancelButton(), Dialog.createButton({ label: "Compare", actions: ["compare"] }), Dialog.createButton({ label: "Save as…", actions: ["as"] }),
      Dialog.createButton({ label: "Load theirs", actions: ["revert"] }), Dialog.warnButton({ label: "Overwrite", actions: ["overwrite"] })];
    if (isNotebook) buttons.push(Dialog.okButton({ label: "Merge", actions: ["merge"] }));
    const body = new Widget({ node: element("p", `${who(onDisk.quire, what)} If you overwrite it, what is there now stays among its checkpoints.`, "quire-ask") });
    const { button } = await showDialog({ title: `Save ${name}`, body, buttons, defaultButton: isNotebook ? buttons.length - 1 : 0 });
    if (doc.isDisposed) throw new Error("Disposed");
    switch (button.actions[0]) {
      case "compare": {
        const theirs = await services.contents.get(path, { content: true });
        const text = (v: unknown): string => typeof v === "string" ? v : ((v as INotebookContent).cells ?? []).map((c) => words(c.source)).join("\n\n");
        const [a, b] = differing(text(isNotebook ? model.toJSON() : options.content), text(theirs.content));
        await showDialog({ title: `What differs in ${name}`, body: new Widget({ node: beside(a, b, other(onDisk.quire)) }), buttons: [Dialog.okButton({ label: "Back" })] });
        break;
      }
      case "as":
        await doc.saveAs();
        throw named("ModalCancelError", "Cancel"); // what was to be saved is not
      case "revert":
        await doc.revert();
        return onDisk;
      case "overwrite":
        return save(services, path, options, onDisk.quire?.version);
      case "merge": {
        const merged = await merge();
        if (merged.conflicts.length && !await choose(merged)) break;
        return finish(merged);
      }
      default:
        throw named("ModalCancelError", "Cancel");
    }
  }
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "quire:save",
  description: "Says who changed a file meanwhile, and merges notebooks.",
  autoStart: true,
  activate: () => {
    const proto = Context.prototype as unknown as { _raiseConflict(onDisk: OnDisk, options: Options): Promise<Contents.IModel> };
    if (typeof proto._raiseConflict !== "function") throw new Error("JupyterLab asks elsewhere what to do with a file that changed; look at save.ts again");
    proto._raiseConflict = async function (this: Document, onDisk: OnDisk, options: Options) {
      // JupyterLab saves by itself too; one question at a time is enough.
      if (this._conflictModalIsOpen) throw named("ModalDuplicateError", "Modal is already displayed");
      this._conflictModalIsOpen = true;
      try {
        return await ask(this, onDisk, options);
      } finally {
        this._conflictModalIsOpen = false;
      }
    };
  },
};

export default plugin;

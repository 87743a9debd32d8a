// Saving that loses nobody's work: each save says which version the page has seen.
// If something else is there by now, the person hears who put it there and chooses
// what becomes of both.
//
// What is there now, and what both are together, is the answer of POST
// BASE/lab/api/merge/PATH {base, mine} (apps/lab/merge.go). It saves nothing.
import { type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { Dialog, InputDialog, showErrorMessage } from "@jupyterlab/apputils";
import { PathExt, URLExt } from "@jupyterlab/coreutils";
import { IDocumentManager } from "@jupyterlab/docmanager";
import { Context, type DocumentRegistry } from "@jupyterlab/docregistry";
import type { NotebookModel } from "@jupyterlab/notebook";
import { type Contents, ServerConnection, type ServiceManager } from "@jupyterlab/services";
import { JSONExt, UUID } from "@lumino/coreutils";
import { Widget } from "@lumino/widgets";
import { Comparison, type Choice, type Choices, type Cell, type Now, type Notebook, contested, element, sameCell, whose } from "./compare";

// What we use of upstream's context: it is where a document is saved.
interface Doc {
  path: string;
  isDisposed: boolean;
  model: DocumentRegistry.IModel;
  contentsModel: Contents.IModel | null;
  revert(): Promise<void>;
  _manager: ServiceManager.IManager;
  _contentProviderId?: string;
  _conflictModalIsOpen: boolean;
  _createSaveOptions(): Partial<Contents.IModel>;
  _updateContentsModel(model: Contents.IModel): void;
  _maybeSave(options: Partial<Contents.IModel>): Promise<Contents.IModel>;
}

type Action = "cancel" | "revert" | "save-as" | "overwrite" | "compare" | "merge";

// The version that each document's page has seen.
const seen = new WeakMap<Doc, string>();

function named(name: string, message: string): Error {
  return Object.assign(new Error(message), { name });
}

function patch(docs: IDocumentManager): void {
  const proto = Context.prototype as unknown as Doc;
  const update = proto._updateContentsModel;
  proto._updateContentsModel = function (this: Doc, model) {
    const version = (model as { quire?: { version?: string } }).quire?.version;
    if (version) seen.set(this, version);
    update.call(this, model);
  };
  const save = proto._maybeSave;
  proto._maybeSave = async function (this: Doc, options) {
    if (this._manager.contents.driveName(this.path)) return save.call(this, options);
    // The names are those by which upstream knows that nothing is to be said.
    if (this._conflictModalIsOpen) throw named("ModalDuplicateError", "Modal is already displayed");
    for (;;) {
      const version = seen.get(this);
      try {
        return await put(this, options, version);
      } catch (e) {
        if ((e as Partial<ServerConnection.ResponseError>).response?.status !== 409) throw e;
        const now = await look(this, version, options);
        if (this.isDisposed) throw named("ModalCancelError", "Disposed");
        if (now && now.quire.version === version) throw e; // refused for another reason
        this._conflictModalIsOpen = true;
        try {
          const done = await settle(docs, this, options, now);
          if (done) return done;
        } finally {
          this._conflictModalIsOpen = false;
        }
        options = this._createSaveOptions(); // it was merged
      }
    }
  };
}

function put(doc: Doc, options: Partial<Contents.IModel>, version?: string): Promise<Contents.IModel> {
  const model = { ...options, contentProviderId: doc._contentProviderId, ...(version && { quire: { version } }) };
  return doc._manager.contents.save(doc.path, model);
}

// look asks what is there now; nothing if the file is gone.
async function look(doc: Doc, base = "", options: Partial<Contents.IModel>): Promise<Now | undefined> {
  const server = doc._manager.serverSettings;
  const ask = async (mine?: unknown): Promise<Response> => ServerConnection.makeRequest(
    URLExt.join(server.baseUrl, "lab/api/merge", URLExt.encodeParts(doc.path)), { method: "POST", body: JSON.stringify({ base, mine }) }, server);
  let answer = await ask(options.type === "notebook" ? options.content : undefined);
  let why = "";
  if (!answer.ok && answer.status !== 404 && options.type === "notebook") {
    why = (await ServerConnection.ResponseError.create(answer)).message; // it cannot be merged
    answer = await ask();
  }
  if (answer.status === 404) return undefined;
  if (!answer.ok) throw await ServerConnection.ResponseError.create(answer);
  return { ...await answer.json() as Now, why };
}

// settle lets the person choose. It gives the model of what is there then, or
// nothing if the document is to be saved as it is now.
async function settle(docs: IDocumentManager, doc: Doc, options: Partial<Contents.IModel>, now: Now | undefined): Promise<Contents.IModel | undefined> {
  // One's own: another page of the same person, or cells that ran while this page was
  // away. What they said is here as well, or newer.
  if (now?.content && now.base && now.quire.me && now.conflicts!.every((c) => c.field === "outputs" || c.field === "execution_count")) {
    merge(doc, options.content as Notebook, now, {});
    return undefined;
  }
  for (;;) {
    const action = await ask(doc.path, options, now);
    if (doc.isDisposed) throw named("ModalCancelError", "Disposed");
    switch (action) {
      case "merge":
        merge(doc, options.content as Notebook, now!, {});
        return undefined;
      case "compare": {
        const choices = await compare(options, now!);
        if (!choices || doc.isDisposed) continue;
        merge(doc, options.content as Notebook, now!, choices);
        return undefined;
      }
      case "overwrite":
        return put(doc, options); // without a version, the server keeps what it overwrites or refuses
      case "save-as":
        if (!await saveAs(docs, doc, options)) continue;
        if (now) {
          await doc.revert();
        } else {
          doc.model.dirty = false;
          void docs.closeFile(doc.path);
        }
        return doc.contentsModel!;
      case "revert":
        await doc.revert();
        return doc.contentsModel!;
      default:
        throw named("ModalCancelError", "Cancel");
    }
  }
}

function clock(at: string): string {
  const t = new Date(at);
  const time = t.toLocaleTimeString([], { timeStyle: "short" });
  return t.toDateString() === new Date().toDateString() ? time : `${time} on ${t.toLocaleDateString()}`;
}

function count(n: number, thing: string): string {
  return n === 1 ? `one ${thing}` : `${n} ${thing}s`;
}

async function ask(path: string, options: Partial<Contents.IModel>, now: Now | undefined): Promise<Action> {
  const what = options.type === "notebook" ? "notebook" : "file";
  const button = (action: Action, label: string): Dialog.IButton => Dialog.createButton({ label, actions: [action], accept: action !== "cancel", displayType: action === "overwrite" || action === "revert" ? "warn" : "default" });
  const buttons = [button("cancel", "Cancel")];
  const lines: string[] = [];
  let title = `This ${what} was deleted or renamed.`;
  let first: Action = "save-as";
  if (!now) {
    lines.push("Save yours under this name again, or under another one.");
    buttons.push(button("save-as", "Save As…"), button("overwrite", "Save Again"));
  } else {
    const { by, me, at } = now.quire;
    title = me ? `You changed this ${what} elsewhere at ${clock(at)}.` : `${by ?? "Somebody"} changed this ${what} at ${clock(at)}.`;
    buttons.push(button("revert", "Revert"), button("save-as", "Save As…"), button("overwrite", "Overwrite"));
    const theirs = whose(now);
    if (now.content) {
      const { both, runs } = contested(now);
      if (both.length) lines.push(`You both changed ${count(both.length, "cell")}. Compare to choose. Merge keeps both versions, one after the other, and takes over the rest.`);
      else lines.push("Merge takes over what was changed there and keeps what you changed.");
      if (runs.length) lines.push(`Where both of you have outputs or settings of a cell, Merge keeps yours: ${count(runs.length, "cell")}.`);
      if (!now.base) lines.push("The version that you began from was not kept, so what was deleted comes back.");
    } else if (now.why) {
      lines.push(now.why);
    }
    lines.push(`Overwrite puts yours in its place. What Merge and Overwrite replace stays among the snapshots of this ${what}.`, `Save As keeps yours under another name and shows ${theirs} here. Revert drops yours.`);
    if (now.theirs !== undefined) buttons.push(button("compare", "Compare…"));
    if (now.content) buttons.push(button("merge", "Merge"));
    first = now.content && !contested(now).both.length ? "merge" : now.theirs !== undefined ? "compare" : "save-as";
  }
  const result = await show(title, new Widget({ node: element("div", {}, element("p", {}, element("b", {}, path)), ...lines.map((l) => element("p", {}, l))) }), buttons, first);
  return (result.button.actions[0] ?? "cancel") as Action;
}

function show<T>(title: string, body: Dialog.IBodyWidget<T>, buttons: Dialog.IButton[], first: string): Promise<Dialog.IResult<T>> {
  const dialog = new Dialog<T>({ title, body, buttons, defaultButton: Math.max(0, buttons.findIndex((b) => b.actions[0] === first)) });
  dialog.addClass("quire-changed");
  dialog.node.setAttribute("aria-label", title);
  return dialog.launch();
}

// compare shows both. Of a notebook it gives what was chosen for its cells.
async function compare(options: Partial<Contents.IModel>, now: Now): Promise<Choices | undefined> {
  const buttons = [Dialog.cancelButton({ label: "Back" })];
  if (now.content) buttons.push(Dialog.okButton({ label: "Merge Like This", actions: ["merge"] }));
  const result = await show("Yours and what is there now", new Comparison(options.content as Notebook | string, now), buttons, "merge");
  return now.content && result.button.accept ? result.value ?? {} : undefined;
}

// saveAs puts the page's version under another name and opens that.
async function saveAs(docs: IDocumentManager, doc: Doc, options: Partial<Contents.IModel>): Promise<boolean> {
  const { contents } = doc._manager;
  const ext = PathExt.extname(doc.path);
  let text = `${PathExt.basename(doc.path, ext)}-mine${ext}`;
  for (;;) {
    const { value } = await InputDialog.getText({ title: "Save yours under another name", label: "Name", text, okLabel: "Save" });
    if (!value) return false;
    const path = PathExt.join(PathExt.dirname(doc.path), value);
    try {
      await contents.get(path, { content: false });
    } catch (e) {
      if ((e as Partial<ServerConnection.ResponseError>).response?.status !== 404) throw e;
      await contents.save(path, options);
      docs.openOrReveal(path);
      return true;
    }
    await showErrorMessage("This name is taken", `There is already something called ${value}. Choose another name.`);
    text = value;
  }
}

// merge makes the document what both are together, with what was chosen. What is
// there now is then what the next save replaces.
function merge(doc: Doc, mine: Notebook, now: Now, choices: Choices): void {
  const content = { ...now.content!, cells: chosen(now, choices) };
  if (choices[""] === "theirs") content.metadata = (now.theirs as Notebook).metadata;
  const model = doc.model as NotebookModel;
  if (content.cells.some((c) => !c.id) || content.nbformat_minor !== mine.nbformat_minor) {
    model.fromJSON(content as never);
  } else {
    reshape(model, mine, content);
  }
  seen.set(doc, now.quire.version);
}

// chosen are the cells of the merged notebook. Where both versions are to stay,
// theirs comes after mine, and a cell of text between them says so: any program
// shows that, and it lasts until somebody deletes it.
function chosen(now: Now, choices: Choices): Cell[] {
  const theirs = new Map((now.theirs as Notebook).cells.map((c) => [c.id, c]));
  const { both, lone } = contested(now);
  const out: Cell[] = [];
  for (const cell of now.content!.cells) {
    const id = cell.id ?? "";
    const other = theirs.get(id);
    const choice: Choice = choices[id] ?? (both.includes(id) ? "both" : "mine");
    const only = lone.get(id);
    if (only) {
      if (choice === "both" || choice === only) out.push(cell);
    } else if (choice === "theirs" && other) {
      out.push(other);
    } else {
      out.push(cell);
      if (choice === "both" && other) out.push(mark(now), { ...other, id: UUID.uuid4() });
    }
  }
  return out;
}

function mark(now: Now): Cell {
  const { by, me, at } = now.quire;
  const name = (by ?? "somebody").replace(/[^\p{L}\p{N} ]/gu, "\\$&");
  const source = `**Two versions of one cell:** above, and below as ${me ? "saved elsewhere" : `${name} saved it`} at ${clock(at)}. Keep one, and delete this.`;
  return { cell_type: "markdown", id: UUID.uuid4(), metadata: { tags: ["conflict"] }, source };
}

// reshape changes only the cells that differ: those that run go on, and the cursor
// stays where it is.
function reshape(model: NotebookModel, mine: Notebook, to: Notebook): void {
  const nb = model.sharedModel;
  const was = new Map(mine.cells.map((c) => [c.id, c]));
  const stay = new Set(to.cells.map((c) => c.id));
  for (let i = nb.cells.length - 1; i >= 0; i--) {
    if (!stay.has(nb.getCell(i).getId())) nb.deleteCell(i);
  }
  to.cells.forEach((cell, i) => {
    const at = nb.cells.findIndex((c) => c.getId() === cell.id);
    const before = was.get(cell.id);
    if (at < 0) {
      nb.insertCell(i, cell as never);
      return;
    }
    if (at !== i) nb.moveCell(at, i);
    if (sameCell(before, cell, true)) return;
    if (before && sameCell({ ...before, source: cell.source }, cell, true)) {
      nb.getCell(i).setSource(cell.source);
    } else {
      nb.deleteCell(i);
      nb.insertCell(i, cell as never);
    }
  });
  if (!JSONExt.deepEqual(mine.metadata, to.metadata)) nb.setMetadata(to.metadata as never);
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "quire:saving",
  description: "Says who changed a document before it is saved, and merges.",
  autoStart: true,
  requires: [IDocumentManager],
  activate: (_: JupyterFrontEnd, docs: IDocumentManager) => patch(docs),
};

export default plugin;

// What JupyterLab asks when a file is not the one that the page knows any more:
// ours says who changed it and when, and merges notebooks by cell.
//
// It asks POST BASE/lab/api/merge/PATH (apps/lab/merge.go), which writes nothing:
// the page shows the result and saves it, if it still is the same file by then.
import type { JupyterFrontEndPlugin } from "@jupyterlab/application";
import { Dialog, showDialog } from "@jupyterlab/apputils";
import { URLExt } from "@jupyterlab/coreutils";
import { Context, type DocumentRegistry } from "@jupyterlab/docregistry";
import type { ICell, INotebookContent } from "@jupyterlab/nbformat";
import { type Contents, ServerConnection, type ServiceManager } from "@jupyterlab/services";
import { Widget } from "@lumino/widgets";

interface About {
  version: string;
  at: string;
  by: string | null;
  me: boolean;
}

// A Conflict is a place that both changed. The merged notebook has mine there.
interface Conflict {
  cell: string;
  path: string[] | null; // null if one deleted the cell that the other changed
  mine: unknown;
  theirs: unknown;
}

interface Merged {
  content: INotebookContent;
  conflicts: Conflict[];
  quire: About;
}

// What we use of a document's context, some of which is its own business.
interface Document {
  path: string;
  isDisposed: boolean;
  contentsModel: Contents.IModel | null;
  model: DocumentRegistry.IModel;
  revert(): Promise<void>;
  _manager: ServiceManager.IManager;
  _conflictModalIsOpen: boolean;
}

type OnDisk = Contents.IModel & { quire?: About };
type Options = Partial<Contents.IModel>;

function named(name: string, message: string): Error {
  return Object.assign(new Error(message), { name });
}

function who(about: About | undefined, what: string): string {
  const at = about ? new Date(about.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "";
  const name = about?.me ? "You" : about?.by ?? "Somebody";
  return `${name} changed this ${what}${about?.me ? " elsewhere" : ""}${at ? ` at ${at}` : ""}.`;
}

function element(tag: string, text: string, name = ""): HTMLElement {
  const el = document.createElement(tag);
  el.textContent = text;
  if (name) el.className = name;
  return el;
}

// shown is what a person can compare of a value.
function shown(value: unknown): string {
  if (value === null || value === undefined) return "(nothing)";
  if (typeof value === "string") return value;
  const cell = value as Partial<ICell>;
  if (cell.cell_type) return [cell.source ?? ""].flat().join("");
  return JSON.stringify(value, null, 1).slice(0, 2000);
}

// Choices shows each conflict with both sides; its value is whose is taken.
class Choices extends Widget implements Dialog.IBodyWidget<boolean[]> {
  private theirs: HTMLInputElement[] = [];

  constructor(conflicts: Conflict[], content: INotebookContent) {
    super();
    this.addClass("quire-choices");
    conflicts.forEach((c, i) => {
      const at = content.cells.findIndex((cell) => cell.id === c.cell);
      const place = c.cell === "" ? "The notebook" : at < 0 ? "A cell" : `Cell ${at + 1}`;
      const group = document.createElement("fieldset");
      group.append(element("legend", `${place}, ${c.path ? c.path.join(" › ") : "deleted by one, changed by the other"}`));
      for (const side of ["mine", "theirs"] as const) {
        const label = document.createElement("label");
        const choice = document.createElement("input");
        choice.type = "radio";
        choice.name = `quire-choice-${i}`;
        // What is deleted here and changed there is in the merged notebook.
        choice.checked = (c.path === null && c.mine === null ? "theirs" : "mine") === side;
        if (side === "theirs") this.theirs.push(choice);
        label.append(choice, element("span", side === "mine" ? "Mine" : "Theirs"), element("pre", shown(c[side])));
        group.append(label);
      }
      this.node.append(group);
    });
  }

  getValue(): boolean[] {
    return this.theirs.map((choice) => choice.checked);
  }
}

// settle puts into a merged notebook what was chosen.
function settle(content: INotebookContent, conflict: Conflict, theirs: boolean): void {
  if (conflict.path === null) {
    if ((theirs ? conflict.theirs : conflict.mine) === null) content.cells = content.cells.filter((c) => c.id !== conflict.cell);
    return;
  }
  if (!theirs) return;
  let into = (conflict.cell === "" ? content : content.cells.find((c) => c.id === conflict.cell)) as Record<string, unknown> | undefined;
  for (const key of conflict.path.slice(0, -1)) into = into?.[key] as Record<string, unknown> | undefined;
  const last = conflict.path.at(-1);
  if (!into || last === undefined) return;
  if (conflict.theirs === null || conflict.theirs === undefined) delete into[last];
  else into[last] = conflict.theirs;
}

async function merge(doc: Document, options: Options): Promise<Contents.IModel> {
  const server = doc._manager.serverSettings;
  const local = doc._manager.contents.localPath(doc.path);
  const answer = await ServerConnection.makeRequest(URLExt.join(server.baseUrl, "lab/api/merge", ...local.split("/").map(encodeURIComponent)), {
    method: "POST", body: JSON.stringify({ base: doc.contentsModel?.hash ?? "", mine: options.content }),
  }, server);
  if (!answer.ok) throw await ServerConnection.ResponseError.create(answer);
  const { content, conflicts, quire } = await answer.json() as Merged;
  if (conflicts.length) {
    const chosen = await showDialog({
      title: "Both of you changed this", body: new Choices(conflicts, content), buttons: [Dialog.cancelButton(), Dialog.okButton({ label: "Merge" })],
    });
    if (!chosen.button.accept || !chosen.value) throw named("ModalCancelError", "Cancel");
    const value = chosen.value;
    conflicts.forEach((c, i) => settle(content, c, value[i] ?? false));
  }
  if (doc.isDisposed) throw new Error("Disposed");
  const saved = await save(doc, { ...options, content }, quire.version);
  doc.model.fromJSON(content as never);
  return saved;
}

// save writes if the file still has a version, and says what it is then.
async function save(doc: Document, options: Options, version: string | undefined): Promise<Contents.IModel> {
  const { contents } = doc._manager;
  const saved = await contents.save(doc.path, { ...options, ...(version ? { quire: { version } } : {}) });
  const { hash, hash_algorithm } = await contents.get(doc.path, { content: false, hash: true });
  return { ...saved, hash, hash_algorithm } as Contents.IModel;
}

async function ask(doc: Document, onDisk: OnDisk, options: Options): Promise<Contents.IModel> {
  const notebook = options.type === "notebook";
  const body = new Widget();
  body.node.append(
    element("p", who(onDisk.quire, notebook ? "notebook" : "file")),
    element("p", "If you overwrite it, what is there now stays among its checkpoints."),
  );
  const buttons = [
    Dialog.cancelButton(),
    Dialog.warnButton({ label: "Discard mine", actions: ["revert"] }),
    Dialog.warnButton({ label: "Overwrite", actions: ["overwrite"] }),
    ...(notebook ? [Dialog.okButton({ label: "Merge", actions: ["merge"] })] : []),
  ];
  const { button } = await showDialog({ title: "File Changed", body, buttons, defaultButton: notebook ? 3 : 0 });
  if (doc.isDisposed) throw new Error("Disposed");
  if (button.actions.includes("merge")) return merge(doc, options);
  if (button.actions.includes("overwrite")) return save(doc, options, onDisk.quire?.version);
  if (button.actions.includes("revert")) {
    await doc.revert();
    return onDisk;
  }
  throw named("ModalCancelError", "Cancel");
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "quire:save",
  description: "Says who changed a file meanwhile, and merges notebooks.",
  autoStart: true,
  activate: () => {
    const proto = Context.prototype as unknown as { _raiseConflict(onDisk: OnDisk, options: Options): Promise<Contents.IModel> };
    if (typeof proto._raiseConflict !== "function") throw new Error("JupyterLab asks elsewhere what to do with a file that changed; look at save.ts again");
    proto._raiseConflict = async function (this: Document, onDisk: OnDisk, options: Options) {
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

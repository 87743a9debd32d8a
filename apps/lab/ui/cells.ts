// Cells that ran while no page of this notebook was open, and those that still
// run: what they said is put in their place, and what they say is shown as if this
// page had asked.
//
// It asks POST BASE/api/quire/cells {kernel, client}, which hands those cells over
// to this page (apps/lab/cell.go).
import { type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import type { CodeCell } from "@jupyterlab/cells";
import { URLExt } from "@jupyterlab/coreutils";
import type { IOutput } from "@jupyterlab/nbformat";
import { INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";
import { type Kernel, KernelMessage, ServerConnection } from "@jupyterlab/services";
import { KernelFutureHandler, KernelShellFutureHandler } from "@jupyterlab/services/lib/kernel/future";

interface Running {
  cell: string;
  request: string;
  last: string;
  outputs: IOutput[];
  execution_count: number | null;
  ended: boolean;
}

type IOPub = KernelMessage.IIOPubMessage;

const kept = 5000; // messages that are remembered of one request

// A page that connects again is told anew what it had not confirmed, some of which
// it may have. Whatever a cell waits for is heard once.
function once(): void {
  const proto = KernelFutureHandler.prototype as unknown as { handleMsg(m: KernelMessage.IMessage): Promise<void>; quireSeen?: Set<string> };
  const handle = proto.handleMsg;
  proto.handleMsg = function (this: typeof proto, m) {
    const seen = this.quireSeen ??= new Set();
    const id = m.header.msg_id;
    if (seen.has(id)) return Promise.resolve();
    seen.add(id);
    if (seen.size > kept) for (const old of seen) { seen.delete(old); break; }
    return handle.call(this, m);
  };
}

async function take(panel: NotebookPanel, kernel: Kernel.IKernelConnection): Promise<void> {
  const early: IOPub[] = []; // what is said until we know whom it is about
  const ours = new Map<string, { handleMsg(m: KernelMessage.IMessage): Promise<void> }>();
  const hear = (_: unknown, m: IOPub): void => {
    const id = (m.parent_header as { msg_id?: string }).msg_id ?? "";
    const future = ours.get(id);
    if (future) void future.handleMsg(m);
    else if (ours.size === 0 && early.length < kept) early.push(m);
  };
  kernel.iopubMessage.connect(hear);
  const server = kernel.serverSettings;
  const answer = await ServerConnection.makeRequest(URLExt.join(server.baseUrl, "api/quire/cells"), {
    method: "POST", body: JSON.stringify({ kernel: kernel.id, client: kernel.clientId }),
  }, server);
  const list = answer.ok ? (await answer.json() as { cells: Running[] }).cells : [];
  for (const running of list) {
    const cell = panel.content.widgets.find((w) => w.model.id === running.cell && w.model.type === "code") as CodeCell | undefined;
    if (!cell) continue;
    const area = cell.outputArea;
    if (!running.ended) {
      // A future of this request, which the page that made it has lost.
      const message = KernelMessage.createMessage({ channel: "shell", msgType: "execute_request", msgId: running.request, session: kernel.clientId, content: { code: "" } });
      const futures = (kernel as unknown as { _futures: Map<string, unknown> })._futures;
      const future = new KernelShellFutureHandler(() => futures.delete(running.request), message, true, true, kernel);
      futures.set(running.request, future);
      ours.set(running.request, future);
      area.future = future as never;
      cell.setPrompt("*");
      cell.model.executionState = "running";
      void future.done.then(() => {
        cell.model.executionState = "idle";
        ours.delete(running.request);
        if (ours.size === 0) kernel.iopubMessage.disconnect(hear);
      }, () => undefined);
    }
    area.model.fromJSON(running.outputs);
    if (running.execution_count !== null) cell.model.executionCount = running.execution_count;
    if (!running.ended) cell.setPrompt("*");
    const after = early.findIndex((m) => m.header.msg_id === running.last) + 1;
    const future = ours.get(running.request);
    for (const m of early.slice(after)) {
      if ((m.parent_header as { msg_id?: string }).msg_id === running.request) void future?.handleMsg(m);
    }
  }
  early.length = 0;
  if (ours.size === 0) kernel.iopubMessage.disconnect(hear);
}

function watch(panel: NotebookPanel): void {
  const done = new WeakSet<Kernel.IKernelConnection>();
  const look = (): void => {
    const kernel = panel.sessionContext.session?.kernel;
    if (!kernel || done.has(kernel)) return;
    if (kernel.connectionStatus !== "connected") {
      kernel.connectionStatusChanged.connect(look);
      return;
    }
    done.add(kernel);
    kernel.connectionStatusChanged.disconnect(look);
    void panel.context.ready.then(() => take(panel, kernel)).catch((e: unknown) => console.warn("Cells that ran alone are not shown live:", e));
  };
  panel.sessionContext.kernelChanged.connect(look);
  look();
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "quire:cells",
  description: "Shows what cells said while nobody looked, and goes on with those that run.",
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_: JupyterFrontEnd, tracker: INotebookTracker) => {
    once();
    tracker.widgetAdded.connect((_sender, panel) => watch(panel));
    tracker.forEach(watch);
  },
};

export default plugin;

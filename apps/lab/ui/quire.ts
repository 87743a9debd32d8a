// Our own part of JupyterLab: it says in which project one is and who else is
// there, leads to the portal and to the Workbench, and shows announcements.
//
// It asks GET BASE/api/quire, whose answer is Status in assets.go: every field
// may be missing, and what is missing is not shown. Links lead to the portal's
// pages, where the person decides; from here nothing is done there.
import { type JupyterFrontEnd, type JupyterFrontEndPlugin, ILabShell } from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import { URLExt } from "@jupyterlab/coreutils";
import { IDefaultFileBrowser } from "@jupyterlab/filebrowser";
import { IMainMenu } from "@jupyterlab/mainmenu";
import { ServerConnection } from "@jupyterlab/services";
import { IStatusBar } from "@jupyterlab/statusbar";
import { Widget } from "@lumino/widgets";
import "./quire.css";

interface Place {
  name: string;
  url?: string;
}

interface Status {
  project?: Place;
  environment?: Place;
  stop?: string;
  people?: string[] | null;
  runs_on?: boolean;
  notices?: { id: string; text: string; url?: string }[] | null;
  workbench?: string;
}

const every = 30_000; // ms between two questions while somebody looks

// link is one that leads away from the app; only a web address becomes one.
function link(text: string, to: string | undefined, title = ""): HTMLElement {
  const at = address(to);
  const el = document.createElement(at ? "a" : "span");
  el.textContent = text;
  if (title) el.title = title;
  if (el instanceof HTMLAnchorElement && at) {
    el.href = at;
    el.target = "_top"; // out of the frame that the bar is in
    el.rel = "noopener";
  }
  return el;
}

function address(to: string | undefined): string {
  if (!to) return "";
  try {
    const url = new URL(to, location.href);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : "";
  } catch {
    return "";
  }
}

// managed is the project's page in the portal as the gateway's frame around us has
// it, which is a page of our own origin; "" where there is no frame.
function managed(): string {
  try {
    return window.parent === window ? "" : window.parent.document.body.dataset["manage"] ?? "";
  } catch {
    return ""; // somebody else's frame
  }
}

// An Item is one word or link of the status bar, hidden while it says nothing.
class Item extends Widget {
  constructor() {
    super();
    this.addClass("quire-item");
    this.hide();
  }

  say(content: HTMLElement | undefined): void {
    const now = this.node.firstElementChild;
    if (content && now?.outerHTML === content.outerHTML) return; // who has its focus keeps it
    this.node.replaceChildren(...(content ? [content] : []));
    this.setHidden(!content);
  }
}

// The administrators' line above everything, until it is closed.
class Announcements extends Widget {
  private closed = new Set<string>(JSON.parse(localStorage.getItem("quire:closed") ?? "[]") as string[]);

  constructor() {
    super();
    this.id = "quire-announcements";
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", "Announcements");
    this.hide();
  }

  say(notices: { id: string; text: string; url?: string }[]): void {
    const open = notices.filter((n) => !this.closed.has(n.id));
    this.node.replaceChildren(...open.map((n) => {
      const line = document.createElement("p");
      const close = document.createElement("button");
      close.type = "button";
      close.textContent = "Close";
      close.setAttribute("aria-label", `Close: ${n.text}`);
      close.addEventListener("click", () => {
        this.closed.add(n.id);
        localStorage.setItem("quire:closed", JSON.stringify([...this.closed].slice(-50)));
        this.say(notices);
      });
      line.append(link(n.text, n.url, n.text), close);
      return line;
    }));
    this.setHidden(!open.length);
    // The panel asks the style for the least height, not the content for its own.
    this.node.style.minHeight = `${open.length * 28}px`;
    this.parent?.fit();
  }
}

function whoElse(people: string[]): string {
  if (people.length === 1) return `${people[0]} is here`;
  return people.length === 2 ? `${people[0]} and ${people[1]} are here` : `${people.length} others are here`;
}

function activate(app: JupyterFrontEnd, shell: ILabShell | null, bar: IStatusBar | null, palette: ICommandPalette | null, menu: IMainMenu | null, browser: IDefaultFileBrowser | null): void {
  const { commands } = app;
  const server = app.serviceManager.serverSettings;
  let status: Status = {};

  const items = { project: new Item(), environment: new Item(), people: new Item(), away: new Item(), stop: new Item() };
  // First on the left, and together before the rest on the right.
  Object.entries(items).forEach(([name, item], i) => {
    const left = name === "project" || name === "environment";
    bar?.registerStatusItem(`quire:${name}`, { item, align: left ? "left" : "right", rank: left ? i - 10 : i + 100, priority: 1 });
  });
  const announcements = new Announcements();
  shell?.add(announcements, "header", { rank: 0 });

  const show = (): void => {
    const { project, environment, people, stop } = status;
    items.project.say(project?.name ? link(project.name, project.url, "The project's page") : undefined);
    items.environment.say(environment?.name ? link(environment.name, environment.url, "The environment that kernels run in") : undefined);
    items.people.say(people?.length ? link(whoElse(people), undefined, people.join(", ")) : undefined);
    items.away.say(status.runs_on ? link("Runs on in your absence", undefined, "You can close this page. Cells that run go on, and what they say is in the notebook when you come back.") : undefined);
    items.stop.say(address(stop) ? link("Stop", stop, "To the portal's page where this can be stopped") : undefined);
    announcements.say(status.notices ?? []);
    for (const id of Object.values(ids)) commands.notifyCommandChanged(id);
  };

  const ask = async (): Promise<void> => {
    const answer = await ServerConnection.makeRequest(URLExt.join(server.baseUrl, "api/quire"), {}, server);
    if (!answer.ok) return; // the server is asked again; what was shown stays
    status = await answer.json() as Status;
    // The server lives on a machine that knows nothing of the portal.
    const portal = managed();
    if (portal && status.project) status.project.url ||= portal;
    if (portal) status.stop ||= `${portal}/sessions`;
    show();
  };
  const look = (): void => {
    if (!document.hidden) ask().catch(() => undefined); // JupyterLab itself tells when the server is away
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, every);
  look();

  // In a narrow window the list of files leaves no room for a document.
  void app.restored.then(() => {
    if (innerWidth <= 720) shell?.collapseLeft();
  });

  // The file a command is about: in the list's own menu the one that is selected
  // there, elsewhere the open document.
  const listed = (): string => [...(browser?.selectedItems() ?? [])][0]?.path ?? "";
  const about = (args: { listed?: unknown }): string => {
    const path = args.listed ? listed() : shell?.currentPath || listed();
    return path.includes(":") ? "" : path; // of another drive
  };
  const go = (to: string | undefined): void => {
    const at = address(to);
    if (at) window.open(at, "_top", "noopener");
  };
  const ids = { workbench: "quire:open-in-workbench", project: "quire:project", stop: "quire:stop" };
  commands.addCommand(ids.workbench, {
    label: "Open in Workbench",
    caption: "The same file in Quire's editor",
    isVisible: () => !!status.workbench,
    isEnabled: (args) => !!about(args),
    execute: (args) => {
      const path = about(args).split("/").map(encodeURIComponent).join("/");
      const at = address(status.workbench);
      if (at && path) window.open(`${at}#project/${path}`, "_blank", "noopener");
    },
  });
  commands.addCommand(ids.project, { label: "Project Page", isVisible: () => !!address(status.project?.url), execute: () => go(status.project?.url) });
  commands.addCommand(ids.stop, { label: "Stop…", caption: "To the portal's page where this can be stopped", isVisible: () => !!address(status.stop), execute: () => go(status.stop) });
  for (const command of Object.values(ids)) palette?.addItem({ command, category: "Quire" });
  menu?.fileMenu.addGroup([{ command: ids.workbench }, { command: ids.project }, { command: ids.stop }], 90);
  app.contextMenu.addItem({ command: ids.workbench, args: { listed: true }, selector: ".jp-DirListing-item[data-isdir=\"false\"]", rank: 3 });
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "quire:status",
  description: "Project, people and announcements of Quire.",
  autoStart: true,
  optional: [ILabShell, IStatusBar, ICommandPalette, IMainMenu, IDefaultFileBrowser],
  activate,
};

export default [plugin];

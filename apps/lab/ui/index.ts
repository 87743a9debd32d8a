// Starts JupyterLab with the plugins that are built in, those of prebuilt
// extensions and our own.
import { JupyterLab, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { PageConfig } from "@jupyterlab/coreutils";
import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import { IConnectionStatus, IServiceManager } from "@jupyterlab/services";
import { PluginRegistry } from "@lumino/coreutils";
import { extensions, mime } from "quire:packages";
import { routes } from "./address";
import cells from "./cells";
import { federated } from "./federation";
import quire from "./quire";
import save from "./save";

// Plugins of extensions that are built in, without which those do better.
const never = new Set([
  "@jupyterlab/apputils-extension:announcements", // asks another host; the portal's own are shown
  "@jupyterlab/fileeditor-extension:language-server", // need the language servers of a Python server
  "@jupyterlab/notebook-extension:language-server",
]);

type Plugin = JupyterFrontEndPlugin<unknown>;

// pluginsOf reads the default export of an extension: a plugin or a list.
function pluginsOf(module: unknown): Plugin[] {
  const data = (module as { default?: unknown }).default ?? module;
  return (Array.isArray(data) ? data : [data]) as Plugin[];
}

async function start(): Promise<void> {
  const fetched = await federated();
  const disabled: string[] = [];
  const deferred: string[] = [];
  const known: JupyterLab.IPluginInfo[] = [];
  const plugins: Plugin[] = [];
  const taken = new Set<string>();

  const add = (extension: string, module: unknown): void => {
    for (const plugin of pluginsOf(module)) {
      if (!plugin?.id || taken.has(plugin.id) || never.has(plugin.id)) continue; // the first wins: an extension may replace what is built in
      taken.add(plugin.id);
      const off = PageConfig.Extension.isDisabled(plugin.id);
      known.push({
        id: plugin.id, description: plugin.description ?? "", extension, enabled: !off, autoStart: plugin.autoStart ?? false,
        requires: plugin.requires ?? [], optional: plugin.optional ?? [], provides: plugin.provides ?? null,
      });
      if (off) {
        disabled.push(plugin.id);
        continue;
      }
      if (PageConfig.Extension.isDeferred(plugin.id)) deferred.push(plugin.id);
      plugins.push(plugin);
    }
  };
  for (const [name, module] of fetched.plugins) add(name, module);
  for (const [name, module] of extensions) add(name, module);
  add("quire", { default: [...quire, cells, save] });

  const mimeExtensions: IRenderMime.IExtensionModule[] = [];
  for (const module of [...fetched.mime, ...mime.map(([, m]) => m)]) {
    const own = pluginsOf(module) as unknown as IRenderMime.IExtension[];
    const on = own.filter((e) => !taken.has(e.id) && !PageConfig.Extension.isDisabled(e.id));
    for (const e of on) taken.add(e.id);
    if (on.length) mimeExtensions.push({ __esModule: true, default: on } as unknown as IRenderMime.IExtensionModule);
  }

  const registry = new PluginRegistry();
  registry.registerPlugins(plugins as never[]);
  const serviceManager = await registry.resolveRequiredService(IServiceManager);
  const connectionStatus = await registry.resolveOptionalService(IConnectionStatus) ?? undefined;
  const app = new JupyterLab({
    pluginRegistry: registry, serviceManager, connectionStatus, mimeExtensions,
    disabled: { matches: disabled, patterns: PageConfig.Extension.disabled },
    deferred: { matches: deferred, patterns: PageConfig.Extension.deferred },
    availablePlugins: known,
    paths: { urls: routes() },
  });
  if (PageConfig.getOption("exposeAppInBrowser").toLowerCase() === "true") Object.assign(window, { jupyterapp: app });
  await app.start({ ignorePlugins: deferred, bubblingKeydown: true });
  await app.restored;
  performance.mark("lab-restored");
}

start().catch((e: unknown) => {
  console.error("JupyterLab did not start:", e);
  const p = document.createElement("p");
  p.role = "alert";
  p.textContent = "JupyterLab could not start. Load the page again; if that does not help, an extension may be at fault: the browser's console says which.";
  document.body.append(p);
});

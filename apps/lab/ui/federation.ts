// Prebuilt extensions: each is a container that a webpack or rspack build made.
// It takes JupyterLab's own packages from a share scope, a plain object, so that
// the app itself needs neither.
import { PageConfig, URLExt } from "@jupyterlab/coreutils";

// What the page config says of one extension; the server reads it from the
// extension's package.json.
interface Extension {
  name: string;
  load: string; // its container's file, below its own directory
  extension?: string; // names of the modules in it
  mimeExtension?: string;
  style?: string;
}

interface Container {
  init(scope: unknown): void | Promise<void>;
  get(module: string): Promise<() => unknown>;
}

export interface Loaded {
  plugins: [string, unknown][];
  mime: unknown[];
}

// plain is a module as a container wants to see it. A module of ES has no
// __esModule, which they look for; one of CommonJS comes inside of a default.
function plain(module: Record<string, unknown>): unknown {
  const names = Object.keys(module);
  if (names.length === 1 && names[0] === "default" && module["default"] !== null && ["object", "function"].includes(typeof module["default"])) return module["default"];
  const copy = Object.create(null) as object;
  for (const name of names) Object.defineProperty(copy, name, { enumerable: true, get: () => module[name] });
  return Object.defineProperty(copy, "__esModule", { value: true });
}

async function shareScope(): Promise<Record<string, Record<string, unknown>>> {
  const { shared } = await import("quire:shared");
  const scope: Record<string, Record<string, unknown>> = {};
  for (const [name, [version, module]] of Object.entries(shared)) {
    const given = plain(module);
    scope[name] = {
      // Loaded already, so that ours wins over what an extension brings along.
      [version]: { from: "JupyterLab", eager: true, loaded: 1, get: async () => () => given },
    };
  }
  return scope;
}

function script(address: string): Promise<void> {
  return new Promise((done, failed) => {
    const s = document.createElement("script");
    s.src = address;
    s.async = true;
    s.onload = () => done();
    s.onerror = () => failed(new Error(`${address} could not be loaded`));
    document.head.append(s);
  });
}

// federated loads the extensions that the page names. One that fails is told on
// the console and left out; the others go on.
export async function federated(): Promise<Loaded> {
  const loaded: Loaded = { plugins: [], mime: [] };
  const wanted = JSON.parse(PageConfig.getOption("federated_extensions") || "[]") as Extension[];
  if (!wanted.length) return loaded;
  const scope = await shareScope();
  const base = PageConfig.getOption("fullLabextensionsUrl");
  const containers = (): Record<string, Container> => ((window as unknown as Record<string, unknown>)["_JUPYTERLAB"] ?? {}) as Record<string, Container>;
  const results = await Promise.allSettled(wanted.map(async (e) => {
    await script(URLExt.join(base, e.name, e.load));
    const container = containers()[e.name];
    if (!container) throw new Error(`its file ${e.load} is not an extension's container`);
    await container.init(scope);
    const module = async (name: string): Promise<unknown> => (await container.get(name))();
    return {
      plugins: e.extension ? await module(e.extension) : undefined,
      mime: e.mimeExtension ? await module(e.mimeExtension) : undefined,
      style: e.style ? await module(e.style) : undefined,
    };
  }));
  results.forEach((r, i) => {
    const name = wanted[i]!.name;
    if (r.status === "rejected") {
      console.error(`The extension ${name} is left out:`, r.reason);
      return;
    }
    if (r.value.plugins) loaded.plugins.push([name, r.value.plugins]);
    if (r.value.mime) loaded.mime.push(r.value.mime);
  });
  return loaded;
}

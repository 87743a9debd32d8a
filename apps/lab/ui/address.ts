// Where the page says it is. JupyterLab puts its own name behind the address of
// its server, and ours is called so already: /lab/lab/tree/PATH would be what
// people see and pass on. It is /lab/tree/PATH; the requests to the server keep
// Jupyter's addresses.
import type { JupyterFrontEnd } from "@jupyterlab/application";
import { PageConfig, URLExt } from "@jupyterlab/coreutils";

const suffix = "lab/";

// routes are the addresses that the app's router goes by. Its base lies one
// level above the server's.
export function routes(): JupyterFrontEnd.IPaths["urls"] {
  const option = (name: string): string => PageConfig.getOption(name);
  const base = option("baseUrl") || "/";
  const common = { static: option("staticUrl"), settings: option("settingsUrl"), themes: option("themesUrl"), translations: option("translationsApiUrl"), notFound: option("notFoundUrl") };
  if (!base.endsWith("/" + suffix)) return { ...common, base, app: URLExt.join(base, "lab"), doc: URLExt.join(base, "doc") };
  const own = base.slice(0, -1);
  shorten(URLExt.normalize(base));
  return { ...common, base: base.slice(0, -suffix.length), app: own, doc: URLExt.join(own, "doc") };
}

// shorten makes JupyterLab say /lab/… where it would say /lab/lab/….
function shorten(base: string): void {
  const long = PageConfig.getUrl;
  PageConfig.getUrl = (options) => {
    const url = long(options);
    if (url === URLExt.join(base, "lab")) return base;
    return url.startsWith(base + suffix) ? base + url.slice(base.length + suffix.length) : url;
  };
}

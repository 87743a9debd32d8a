// What Workbench and its page say to each other; apps/workbench has the other
// side. A path has its names percent-encoded and slashes between them, so any
// bytes can be in a name.

const prefix = document.body.dataset.prefix ?? "";
export const siblings = document.body.dataset.siblings ?? "";

export type Kind = "file" | "dir" | "link" | "special";

export interface Entry {
  n: string; // what can be shown of the name
  r?: string; // the name percent-encoded, where that is not all of it
  k: Kind;
  s?: number;
  t: number;
  m: number;
  u: number;
  g: number;
  l?: number;
}

export interface Root {
  id: string;
  title: string;
  path: string;
  fixed: boolean;
  only?: boolean;
}

export interface Place {
  root: string;
  path: string;
}

export interface Stat {
  entry: Entry;
  version: string;
  writable: boolean;
  readable: boolean;
  target: string;
  leads: string;
  out: boolean;
  to: Kind | "";
  full: string;
  owner: string;
  group: string;
}

export interface Changed {
  by?: string;
  me?: boolean;
  at: number;
  gone?: boolean;
}

export interface Progress {
  items: number;
  bytes: number;
  failed: number;
  errors?: string[];
  done?: boolean;
  error?: string;
}

export interface Upload {
  id: string;
  offset: number;
  size: number;
  done: boolean;
}

export interface Rule {
  who: "owner" | "user" | "group" | "named" | "mask" | "other";
  name?: string;
  perm: number;
}

export interface Permissions {
  entry: Entry;
  mine: boolean;
  rules: Rule[];
  inherit: boolean;
  owner: string;
  group: string;
}

export class Refused extends Error {
  constructor(readonly kind: string, message: string, readonly changed?: Changed) {
    super(message);
  }
}

export function nameKey(e: Entry): string {
  return e.r ?? encodeURIComponent(e.n);
}

export function join(dir: string, key: string): string {
  return dir ? dir + "/" + key : key;
}

export function parent(path: string): string {
  const i = path.lastIndexOf("/");
  return i < 0 ? "" : path.slice(0, i);
}

export function last(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

// shown is a path for people; bytes that are no text become question marks.
export function shown(path: string): string {
  return path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return unescapeBytes(part);
    }
  }).join("/");
}

// typable is a name as it can stand in a field and be read from there again, or
// nothing where that would be another name: what is no text, and line ends.
export function typable(key: string): string {
  try {
    const name = decodeURIComponent(key);
    return /[\r\n]/.test(name) ? "" : name;
  } catch {
    return "";
  }
}

function unescapeBytes(part: string): string {
  const bytes: number[] = [];
  for (let i = 0; i < part.length; i++) {
    if (part[i] === "%") {
      bytes.push(parseInt(part.slice(i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(part.charCodeAt(i));
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

export function address(at: string, query: Record<string, string> = {}): string {
  const q = new URLSearchParams(query).toString();
  return `${prefix}/api/${at}${q ? "?" + q : ""}`;
}

async function call(method: string, at: string, query: Record<string, string> = {}, body?: BodyInit, signal?: AbortSignal): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(address(at, query), { method, body: body ?? null, headers: { Accept: "application/json" }, signal: signal ?? null });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new Refused("away", "Workbench cannot be reached. Check your connection; nothing that was saved is lost.");
  }
  if (answer.ok) return answer;
  let said: { error?: { kind: string; message: string }; changed?: Changed } = {};
  try {
    said = await answer.json() as typeof said;
  } catch {
    // Then it was not Workbench that answered.
  }
  if (said.changed) throw new Refused("changed", "The file was changed meanwhile.", said.changed);
  if (answer.status === 401) throw new Refused("away", "You are signed out. Sign in on the portal in another tab, then try again here.");
  throw new Refused(said.error?.kind ?? "away", said.error?.message ?? `Workbench answered with status ${answer.status}. Reload the page if it stays so.`);
}

async function json<T>(method: string, at: string, query: Record<string, string> = {}, body?: unknown): Promise<T> {
  const answer = await call(method, at, query, body === undefined ? undefined : JSON.stringify(body));
  return await answer.json() as T;
}

function of(p: Place): Record<string, string> {
  return { root: p.root, path: p.path };
}

export const roots = () => json<{ roots: Root[]; me: number; name: string }>("GET", "roots");
export const show = (path: string) => json<Root>("POST", "roots", {}, { path });
export const hide = (id: string) => json<unknown>("DELETE", "roots/" + id);
export const stat = (p: Place) => json<Stat>("GET", "stat", of(p));
export const read = (p: Place) => json<{ text: string; version: string; writable: boolean; entry: Entry }>("GET", "file", of(p));
export const mkdir = (p: Place, parents = false) => json<unknown>("POST", "folder", parents ? { ...of(p), parents: "1" } : of(p));
export const rename = (p: Place, to: string) => json<unknown>("POST", "rename", { ...of(p), to });
export const permissions = (p: Place) => json<Permissions>("GET", "permissions", of(p));
export const share = (p: Place, name: string, write: boolean) =>
  json<{ full: string; items: number; failed: number; errors?: string[] }>("POST", "share", {}, { ...of(p), name, write });

export async function write(p: Place, text: string, version: string): Promise<{ version: string; entry: Entry }> {
  const answer = await call("PUT", "file", { ...of(p), version }, new Blob([text]));
  return await answer.json() as { version: string; entry: Entry };
}

// list gives a directory as far as it has arrived, then the rest.
export async function list(p: Place, more: (entries: Entry[], people: Record<string, string>) => void): Promise<void> {
  let after = "";
  do {
    const page = await json<{ entries: Entry[]; next: string; people: Record<string, string> }>("GET", "list", after ? { ...of(p), after } : of(p));
    more(page.entries, page.people);
    after = page.next;
  } while (after);
}

// work runs something long and tells how far it is.
export async function work(at: string, body: unknown, report: (p: Progress) => void, signal?: AbortSignal): Promise<Progress> {
  const answer = await call("POST", at, {}, JSON.stringify(body), signal);
  let end: Progress | undefined;
  const take = (line: string): void => {
    if (!line) return;
    const p = JSON.parse(line) as Progress;
    if (p.done) end = p;
    else report(p);
  };
  let rest = "";
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    lines.forEach(take);
  }
  take(rest);
  if (!end) throw new Refused("away", "The connection broke before the end. Refresh to see what was done.");
  if (end.error) throw new Refused("failed", end.error);
  return end;
}

export function raw(p: Place, download = false): string {
  return address("raw", download ? { ...of(p), download: "1" } : of(p));
}

export async function archive(root: string, path: string, names: string[], format: "zip" | "tar"): Promise<string> {
  const { id } = await json<{ id: string }>("POST", "archives", {}, { root, path, names, format });
  return address("archives/" + id);
}

export const uploadBegin = (p: Place, size: number, modified: number, replace: boolean) =>
  json<Upload>("POST", "uploads", {}, { ...of(p), size, modified, replace });
export const uploadStatus = (id: string) => json<Upload>("GET", "uploads/" + id);
export const uploadCancel = (id: string) => json<unknown>("DELETE", "uploads/" + id);
export async function uploadPiece(id: string, offset: number, piece: Blob, signal: AbortSignal): Promise<Upload> {
  const answer = await call("PATCH", "uploads/" + id, { offset: String(offset) }, piece, signal);
  return await answer.json() as Upload;
}

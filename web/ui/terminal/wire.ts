// The messages of the terminal's sockets; apps/terminal has the other side.

export interface Ended {
  code: number;
  signal?: string;
  at: string;
}

export interface Tab {
  id: string;
  name: string;
  ended?: Ended;
}

export interface Failure {
  kind: string;
  message: string;
}

export interface Answer {
  tag: number;
  shell?: string;
  busy?: string;
  error?: Failure;
}

export interface LinkMessage extends Partial<Answer> {
  boot?: string;
  shells?: Tab[];
}

export interface Command {
  do: "open" | "close" | "rename" | "restart";
  shell?: string;
  name?: string;
  sure?: boolean;
}

export interface ShellMessage {
  begin?: { at: number; live: number; lost?: number; fresh?: boolean; restore?: string };
  state?: { cols: number; rows: number; drives: boolean; ended?: Ended };
  notice?: string;
}

// socketAddress is where a socket of this page is, on whatever name the page has.
export function socketAddress(prefix: string, query: Record<string, string> = {}): string {
  const url = new URL(prefix + "/socket", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams(query).toString();
  return url.href;
}

// howItEnded says an exit status in words.
export function howItEnded(e: Ended): string {
  const at = new Date(e.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (e.signal) return `The shell was ended by a signal (${e.signal}) at ${at}.`;
  if (e.code === 0) return `The shell has ended (at ${at}).`;
  return `The shell has ended with exit code ${e.code} (at ${at}).`;
}

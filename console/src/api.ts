// Requests to the relay that the page came from: the login, reads with its token, and calls of NIP-86.

import { batch } from "@preact/signals";
import { proof } from "./proof";
import type { Signer } from "./signer";
import { ended, logOut, login, reach, returns } from "./state";
import type { Session } from "./types";

// Longest wait for an answer, in milliseconds.
const TIMEOUT_MS = 10_000;
// Interval of the questions whether the relay is ready, in milliseconds.
const WATCH_MS = 3_000;

export class Problem extends Error {
  constructor(
    message: string,
    // 0 if no answer came.
    readonly status: number,
    readonly code?: string,
  ) {
    super(message);
  }
}

interface ProblemDocument {
  detail?: string;
  code?: string;
  url?: string;
}

function setAway(): void {
  if (reach.value.state !== "away") reach.value = { state: "away" };
}

function setPresent(next: typeof reach.value): void {
  const before = reach.value;
  batch(() => {
    if (before.state !== next.state || next.state === "not-ready") reach.value = next;
    if (before.state === "away") returns.value += 1;
  });
}

// Sends a request, and reads the answer as JSON.
async function request<T>(path: string, init: RequestInit, signal?: AbortSignal): Promise<T> {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, {
      ...init,
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    setAway();
    throw new Problem("The relay does not answer. This page asks again by itself.", 0);
  }
  if (response.ok) return JSON.parse(text) as T;
  const { detail, code, url } = readProblem(text);
  const words = detail ?? `The relay answered ${response.status}.`;
  throw new Problem(url ? `${words}${elsewhere(url)}` : words, response.status, code);
}

// The relay names the URL that it expects in a proof: the console is opened at the same host.
function elsewhere(url: string): string {
  try {
    const { origin } = new URL(url);
    return origin === location.origin ? "" : ` Open the console at ${origin}/console.`;
  } catch {
    return "";
  }
}

function readProblem(text: string): ProblemDocument {
  try {
    const document: unknown = JSON.parse(text);
    return typeof document === "object" && document !== null ? (document as ProblemDocument) : {};
  } catch {
    return {};
  }
}

const LOGIN = "/console/api/login";

async function newSession(signer: Signer): Promise<Session> {
  const authorization = await proof(signer, `${location.origin}${LOGIN}`);
  return request<Session>(LOGIN, { method: "POST", headers: { authorization } });
}

export async function logIn(signer: Signer): Promise<void> {
  const session = await newSession(signer);
  batch(() => {
    login.value = { signer, session };
    ended.value = null;
  });
}

// One renewal at a time: all requests that find the token expired wait for the same one.
let renewal: Promise<void> | null = null;

function renew(): Promise<void> {
  const current = login.value;
  if (!current) throw new Problem("Log in again.", 401);
  renewal ??= newSession(current.signer)
    .then((session) => {
      if (login.value?.signer === current.signer) login.value = { signer: current.signer, session };
    })
    .finally(() => {
      renewal = null;
    });
  return renewal;
}

async function withToken<T>(path: string, init: RequestInit, signal?: AbortSignal): Promise<T> {
  const token = login.value?.session.token ?? "";
  return request<T>(path, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } }, signal);
}

// A read with the token. One that has expired is renewed once; a key that may enter no more is logged out.
async function read<T>(path: string, init: RequestInit, signal?: AbortSignal): Promise<T> {
  try {
    return await withToken<T>(path, init, signal);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
  }
  try {
    await renew();
  } catch (error) {
    if (error instanceof Problem && error.status === 0) throw error;
    const why = error instanceof Error ? error.message : String(error);
    logOut(`The login has ended, and a new one was not made: ${why}`);
    throw error;
  }
  return withToken<T>(path, init, signal);
}

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return read<T>(`/console/api/${path}`, { method: "GET" }, signal);
}

export function post<T>(path: string, body: unknown): Promise<T> {
  const headers = { "content-type": "application/json" };
  return read<T>(`/console/api/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

// A call of NIP-86, signed by the key. The relay answers a fault in its parameters with 200 and `error`.
export async function manage(method: string, params: unknown[]): Promise<void> {
  const current = login.value;
  if (!current) throw new Problem("Log in again.", 401);
  const body = JSON.stringify({ method, params });
  const authorization = await proof(current.signer, current.session.nip86_url, body);
  const headers = { authorization, "content-type": "application/nostr+json+rpc" };
  const { error } = await request<{ error?: string }>("/", { method: "POST", headers, body });
  if (error) throw new Problem(error, 200);
}

// Asks whether the relay is ready, while the page is seen.
async function watch(): Promise<void> {
  if (document.hidden) return;
  try {
    const response = await fetch("/ready", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    const { reason } = (await response.json()) as { reason?: string };
    setPresent(response.ok ? { state: "well" } : { state: "not-ready", reason: reason ?? "it gives no reason" });
  } catch {
    setAway();
  }
}

export function startWatch(): void {
  void watch();
  setInterval(() => void watch(), WATCH_MS);
  document.addEventListener("visibilitychange", () => void watch());
}

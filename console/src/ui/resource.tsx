// Reads of the relay inside a page: loading, the answer, or the reason why there is none.

import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Problem, get } from "../api";
import { returns } from "../state";
import { Button, Loading, Notice } from "./basic";

export interface Resource<T> {
  data: T | null;
  error: Problem | null;
  isLoading: boolean;
  reload: () => void;
}

// Asks for `path` at once, again when the relay comes back, and every so many milliseconds while the page is seen.
export function useResource<T>(path: string | null, everyMs?: number): Resource<T> {
  const [state, setState] = useState<{
    path: string | null;
    data: T | null;
    error: Problem | null;
    isLoading: boolean;
  }>({
    path,
    data: null,
    error: null,
    isLoading: path !== null,
  });
  const [round, setRound] = useState(0);
  const back = returns.value;

  useEffect(() => {
    if (path === null) return;
    const abort = new AbortController();
    const ask = async () => {
      setState((before) => ({ ...before, path, data: before.path === path ? before.data : null, isLoading: true }));
      try {
        const data = await get<T>(path, abort.signal);
        if (!abort.signal.aborted) setState({ path, data, error: null, isLoading: false });
      } catch (error) {
        if (abort.signal.aborted) return;
        const problem = error instanceof Problem ? error : new Problem(String(error), 0);
        setState((before) => ({ ...before, error: problem, isLoading: false }));
      }
    };
    void ask();
    const timer = everyMs === undefined ? undefined : setInterval(() => !document.hidden && void ask(), everyMs);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [path, everyMs, round, back]);

  const reload = useCallback(() => setRound((count) => count + 1), []);
  const isCurrent = state.path === path;
  return {
    data: isCurrent ? state.data : null,
    error: isCurrent ? state.error : null,
    isLoading: isCurrent ? state.isLoading : path !== null,
    reload,
  };
}

export function Loaded<T>({
  resource,
  what,
  children,
}: {
  resource: Resource<T>;
  what: string;
  children: (data: T) => ComponentChildren;
}) {
  const { data, error, isLoading, reload } = resource;
  return (
    <>
      {error && (
        <Notice tone="bad">
          <p>{error.message}</p>
          {error.status !== 0 && (
            <Button onClick={reload} busy={isLoading}>
              Ask again
            </Button>
          )}
        </Notice>
      )}
      {data !== null ? children(data) : !error && <Loading what={what} />}
    </>
  );
}

export interface Pages<T> {
  rows: T[];
  error: Problem | null;
  isLoading: boolean;
  isFirst: boolean;
  hasMore: boolean;
  more: () => void;
  reload: () => void;
}

// Most rows that a list shows; a search narrows it down.
const ROWS_MAX = 1_000;

// A list in pages: `pathOf` names the page behind a cursor, `rowsOf` reads its rows.
export function usePages<A extends { next_cursor?: string | null }, T>(
  path: string | null,
  rowsOf: (answer: A) => T[],
): Pages<T> {
  const [rows, setRows] = useState<T[]>([]);
  const [cursor, setCursor] = useState<string | null>(null);
  const [error, setError] = useState<Problem | null>(null);
  const [isLoading, setLoading] = useState(path !== null);
  const [isFirst, setFirst] = useState(true);
  const [round, setRound] = useState(0);
  const abort = useRef<AbortController | null>(null);
  const back = returns.value;

  const ask = useCallback(
    async (from: string | null) => {
      if (path === null) return;
      abort.current?.abort();
      const mine = new AbortController();
      abort.current = mine;
      setLoading(true);
      try {
        const behind = from === null ? "" : `${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(from)}`;
        const answer = await get<A>(`${path}${behind}`, mine.signal);
        if (mine.signal.aborted) return;
        setRows((before) => [...(from === null ? [] : before), ...rowsOf(answer)].slice(0, ROWS_MAX));
        setCursor(answer.next_cursor ?? null);
        setError(null);
        setFirst(false);
      } catch (reason) {
        if (mine.signal.aborted) return;
        setError(reason instanceof Problem ? reason : new Problem(String(reason), 0));
      }
      setLoading(false);
    },
    [path],
  );

  useEffect(() => {
    setError(null);
    void ask(null);
    return () => abort.current?.abort();
  }, [ask, round, back]);

  return {
    rows,
    error,
    isLoading,
    isFirst,
    hasMore: cursor !== null && rows.length < ROWS_MAX,
    more: () => void ask(cursor),
    reload: () => setRound((count) => count + 1),
  };
}

export function Listed<T>({
  pages,
  what,
  empty,
  children,
}: {
  pages: Pages<T>;
  what: string;
  empty: ComponentChildren;
  children: (rows: T[]) => ComponentChildren;
}) {
  const { rows, error, isLoading, isFirst, hasMore, more, reload } = pages;
  return (
    <>
      {error && (
        <Notice tone="bad">
          <p>{error.message}</p>
          {error.status !== 0 && (
            <Button onClick={reload} busy={isLoading}>
              Ask again
            </Button>
          )}
        </Notice>
      )}
      {isFirst && !error && <Loading what={what} />}
      {!isFirst && rows.length === 0 && !isLoading && !hasMore && empty}
      {rows.length > 0 && <div class="section list">{children(rows)}</div>}
      {hasMore && (
        <div class="more">
          <Button onClick={more} busy={isLoading}>
            Show more
          </Button>
        </div>
      )}
    </>
  );
}

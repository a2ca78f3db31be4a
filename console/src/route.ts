// Places of the page, in the part of the address behind `#`.

import { signal } from "@preact/signals";

export type Name = "now" | "groups" | "found" | "group" | "keypackages" | "access" | "inspector" | "configuration";
export interface Route {
  name: Name;
  // The group of `group`.
  id?: string;
}

const NAMES: readonly Name[] = ["now", "groups", "found", "keypackages", "access", "inspector", "configuration"];

function parse(hash: string): Route | undefined {
  const path = hash.replace(/^#\/?/, "");
  const group = /^groups\/(.+)$/.exec(path);
  if (group?.[1]) {
    try {
      return { name: "group", id: decodeURIComponent(group[1]) };
    } catch {
      return undefined;
    }
  }
  const name = NAMES.find((known) => known === path);
  return name && { name };
}

export const route = signal<Route | undefined>(parse(location.hash));
addEventListener("hashchange", () => {
  route.value = parse(location.hash);
});

export function groupLink(id: string): string {
  return `#/groups/${encodeURIComponent(id)}`;
}

export function go(hash: string): void {
  location.hash = hash;
}

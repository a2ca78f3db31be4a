// Rosters (kind 450): the events that change a group, and a preview of their effect (docs/rules.md, "Rosters").

import type { EventTemplate, Member, Role, RosterEntry } from "./types";

// Most keys that one roster names.
export const KEYS_MAX = 2_000;
// Most members of a group.
export const MEMBERS_MAX = 10_000;
// Most bytes of a group's name.
export const NAME_BYTES_MAX = 256;

export const OPS = ["add", "remove", "promote", "demote", "replace", "reset-epoch"] as const;
export type Op = (typeof OPS)[number] | "bootstrap";

export interface Change {
  op: Op;
  keys: string[];
  // The role of keys that become members; for `bootstrap`, `add` and `replace`.
  role: Role;
  name?: string;
  // For `reset-epoch`.
  epoch?: string;
}

export const TAKES_ROLE: readonly Op[] = ["bootstrap", "add", "replace"];

export function template(group: string, seq: number, change: Change, at: number): EventTemplate {
  const tags = [
    ["h", group],
    ["seq", String(seq)],
    ["op", change.op],
  ];
  if (change.op === "reset-epoch") tags.push(["epoch", change.epoch ?? ""]);
  else for (const key of change.keys) tags.push(["p", key]);
  if (TAKES_ROLE.includes(change.op) && change.role === "admin") tags.push(["role", "admin"]);
  if (change.name) tags.push(["name", change.name]);
  return { kind: 450, created_at: at, tags, content: "" };
}

export interface Preview {
  joins: { key: string; role: Role }[];
  leaves: string[];
  roles: { key: string; from: Role; to: Role }[];
  unchanged: string[];
  membersAfter: number;
  adminsAfter: number;
  // Reasons for which the relay would refuse the roster.
  faults: string[];
}

type Members = Map<string, Role>;

export function membersOf(members: readonly Member[]): Members {
  return new Map(members.map(({ pubkey, role }) => [pubkey, role]));
}

function after(before: Members, { op, keys, role }: Change): Members {
  const result: Members = new Map(op === "replace" || op === "bootstrap" ? [] : before);
  for (const key of keys) {
    const present = before.get(key);
    if (op === "bootstrap") result.set(key, role);
    else if (op === "add" || op === "replace") result.set(key, present ?? role);
    else if (op === "remove") result.delete(key);
    else if (present && op !== "reset-epoch") result.set(key, op === "promote" ? "admin" : "member");
  }
  return result;
}

function admins(members: Members): number {
  return [...members.values()].filter((role) => role === "admin").length;
}

// The effect of a change on these members. `self` is the key of a group admin that signs; an admin key may do more.
// `unlisted` members are not among `before`, so a key that is not there may be a member all the same.
export function preview(before: Members, change: Change, self?: string, unlisted = 0): Preview {
  const then = after(before, change);
  const joins = [...then].filter(([key]) => !before.has(key)).map(([key, role]) => ({ key, role }));
  const leaves = [...before.keys()].filter((key) => !then.has(key));
  const roles = [...then].flatMap(([key, to]) => {
    const from = before.get(key);
    return from && from !== to ? [{ key, from, to }] : [];
  });
  const touched = new Set([...joins.map(({ key }) => key), ...leaves, ...roles.map(({ key }) => key)]);
  const unchanged = change.keys.filter((key) => !touched.has(key));
  return {
    joins,
    leaves,
    roles,
    unchanged,
    membersAfter: then.size + (change.op === "replace" ? 0 : unlisted),
    adminsAfter: admins(then),
    faults: faults(before, then, change, touched.size > 0 || unlisted > 0, unlisted > 0, self),
  };
}

function faults(
  before: Members,
  then: Members,
  change: Change,
  hasEffect: boolean,
  isPart: boolean,
  self?: string,
): string[] {
  const { op, keys, name, epoch } = change;
  const found: string[] = [];
  if (op === "reset-epoch") {
    if (!/^(0|[1-9]\d{0,15})$/.test(epoch ?? "")) found.push("Write the epoch as a decimal number, such as 7.");
    return found;
  }
  if (keys.length === 0) found.push("Name at least one key.");
  else if (!hasEffect && !name) found.push("This changes nothing: the members are so already.");
  if (keys.length > KEYS_MAX) found.push(`One roster names at most ${KEYS_MAX} keys; send several.`);
  if (then.size > MEMBERS_MAX) found.push(`A group has at most ${MEMBERS_MAX} members.`);
  if (new TextEncoder().encode(name ?? "").length > NAME_BYTES_MAX) {
    found.push(`A name has at most ${NAME_BYTES_MAX} bytes; shorten it.`);
  }
  const strangers = isPart ? 0 : keys.filter((key) => !before.has(key)).length;
  if ((op === "promote" || op === "demote") && strangers > 0) {
    found.push(`${strangers === 1 ? "One key is" : `${strangers} keys are`} no member; add first.`);
  }
  const isSelfKnown = self !== undefined && (before.has(self) || !isPart);
  if (isSelfKnown && then.get(self) !== "admin") {
    found.push("You would be no group admin afterwards. Another admin must do this.");
  }
  return found;
}

const VERBS: Record<string, string> = {
  bootstrap: "founded the group with",
  add: "added",
  remove: "removed",
  promote: "made group admins of",
  demote: "made plain members of",
  replace: "set the list of members to",
};

// A sentence about a roster of the timeline, without its author and its keys.
export function verb({ op, event }: RosterEntry): string {
  if (op === "reset-epoch") {
    const epoch = event.tags.find(([name]) => name === "epoch")?.[1] ?? "?";
    return `set the epoch to ${epoch}`;
  }
  return VERBS[op] ?? op;
}

export function tagOf(event: EventTemplate, name: string): string | undefined {
  return event.tags.find(([first]) => first === name)?.[1];
}

// The `h` of a group (docs/rules.md, "Words"): 1 to 128 characters, the first a letter or a digit.
export function isGroupId(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/.test(text);
}

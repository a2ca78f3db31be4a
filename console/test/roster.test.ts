// The preview of a roster against the rules of docs/rules.md, "Rosters", and the keys that people paste.

import assert from "node:assert/strict";
import { test } from "node:test";
import { npub, publicKeys } from "../src/keys";
import { type Change, preview, template } from "../src/roster";
import type { Role } from "../src/types";

const [A, B, C, D] = ["a", "b", "c", "d"].map((digit) => digit.repeat(64)) as [string, string, string, string];
const BEFORE = new Map<string, Role>([
  [A, "admin"],
  [B, "member"],
]);

function seen(op: Change["op"], keys: string[], more: Partial<Change> = {}, self?: string) {
  const { joins, leaves, roles, unchanged, membersAfter, adminsAfter, faults } = preview(
    BEFORE,
    { op, keys, role: "member", ...more },
    self,
  );
  return {
    joins: joins.map(({ key, role }) => [key, role]),
    leaves,
    roles,
    unchanged,
    membersAfter,
    adminsAfter,
    faults,
  };
}

test("each change has its effect and no other", () => {
  const same = { joins: [], leaves: [], roles: [], unchanged: [], membersAfter: 2, adminsAfter: 1, faults: [] };
  assert.deepEqual(seen("add", [B, C]), { ...same, joins: [[C, "member"]], unchanged: [B], membersAfter: 3 });
  const admins = { ...same, joins: [[C, "admin"]], membersAfter: 3, adminsAfter: 2 };
  assert.deepEqual(seen("add", [C], { role: "admin" }), admins);
  assert.deepEqual(seen("remove", [B, D]), { ...same, leaves: [B], unchanged: [D], membersAfter: 1 });
  const promoted = { ...same, roles: [{ key: B, from: "member", to: "admin" }], adminsAfter: 2 };
  assert.deepEqual(seen("promote", [B]), promoted);
  const demoted = { ...same, roles: [{ key: A, from: "admin", to: "member" }], adminsAfter: 0 };
  assert.deepEqual(seen("demote", [A]), demoted);
  // Present members keep their roles.
  const replaced = { ...same, joins: [[C, "member"]], leaves: [B], unchanged: [A], membersAfter: 2 };
  assert.deepEqual(seen("replace", [A, C]), replaced);
  assert.deepEqual(seen("reset-epoch", [], { epoch: "7" }), same);
});

test("a change that the relay would refuse is said to be one", () => {
  const fault = (op: Change["op"], keys: string[], more: Partial<Change> = {}, self?: string) =>
    seen(op, keys, more, self).faults.join();
  assert.match(fault("add", []), /at least one key/);
  assert.match(fault("add", [B]), /changes nothing/);
  assert.equal(fault("add", [B], { name: "Another name" }), "");
  assert.match(fault("promote", [C]), /no member/);
  assert.match(fault("remove", [A], {}, A), /no group admin/);
  assert.equal(fault("remove", [A]), "", "an admin key may leave a group without an admin");
  assert.match(fault("add", [C], { name: "ü".repeat(129) }), /256 bytes/);
  assert.match(
    fault(
      "add",
      Array.from({ length: 2_001 }, (_, n) => n.toString(16).padStart(64, "0")),
    ),
    /2000 keys/,
  );
  for (const epoch of ["", "x", "01", "-1"]) assert.match(fault("reset-epoch", [], { epoch }), /decimal number/);
});

test("a roster has the tags that the relay reads", () => {
  const change: Change = { op: "add", keys: [C], role: "admin", name: "Crew" };
  assert.deepEqual(template("grp", 3, change, 100), {
    kind: 450,
    created_at: 100,
    tags: [
      ["h", "grp"],
      ["seq", "3"],
      ["op", "add"],
      ["p", C],
      ["role", "admin"],
      ["name", "Crew"],
    ],
    content: "",
  });
  const reset = template("grp", 4, { op: "reset-epoch", keys: [C], role: "member", epoch: "7" }, 100);
  assert.deepEqual(reset.tags, [
    ["h", "grp"],
    ["seq", "4"],
    ["op", "reset-epoch"],
    ["epoch", "7"],
  ]);
});

test("pasted keys are read in hex and as npub, each once, and others are named", () => {
  const text = `${A}\n${npub(A)}, nostr:${npub(B)}  ${C.toUpperCase()} nsec1abc`;
  assert.deepEqual(publicKeys(text), { keys: [A, B, C], wrong: ["nsec1abc"] });
});

test("of a group that is listed in part, a key that is not listed may be a member", () => {
  const part = (op: Change["op"], keys: string[], self?: string) =>
    preview(BEFORE, { op, keys, role: "member" }, self, 1_000);
  assert.deepEqual(part("promote", [C]).faults, []);
  assert.deepEqual(part("add", [B]).faults, []);
  assert.equal(part("add", [C]).membersAfter, 1_003);
  assert.equal(part("replace", [A]).membersAfter, 1);
  assert.match(part("remove", [A], A).faults.join(), /no group admin/);
  assert.deepEqual(part("add", [C], D).faults, []);
});

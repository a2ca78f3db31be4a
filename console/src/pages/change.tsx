// The form for a change of a group's members: what it names, a preview of its effect, and a button that signs it.

import { useMemo, useState } from "preact/hooks";
import { plural } from "../format";
import { publicKeys } from "../keys";
import { type Change, type Op, OPS, TAKES_ROLE, membersOf, preview } from "../roster";
import type { Member, Role } from "../types";
import { Button, Field, Notice, Section } from "../ui/basic";
import { KeyField } from "../ui/keyfield";
import { Faults, PreviewList } from "../ui/preview";

export interface Draft {
  op: (typeof OPS)[number];
  text: string;
}

const TITLES: Record<(typeof OPS)[number], string> = {
  add: "Add members",
  remove: "Remove members",
  promote: "Make members group admins",
  demote: "Make admins plain members",
  replace: "Replace the list of members",
  "reset-epoch": "Set the epoch of the order of commits",
};

const HINTS: Partial<Record<Op, string>> = {
  replace: "All members afterwards, one a line: every other one leaves. Present members keep their roles.",
};

export function ChangeForm({
  members,
  unlisted,
  start,
  self,
  onSend,
  onClose,
}: {
  members: Member[];
  // Members that are not among `members`.
  unlisted: number;
  start: Draft;
  self: string | undefined;
  onSend: (change: Change) => Promise<void>;
  onClose: () => void;
}) {
  const [op, setOp] = useState(start.op);
  const [text, setText] = useState(start.text);
  const [role, setRole] = useState<Role>("member");
  const [name, setName] = useState("");
  const [epoch, setEpoch] = useState("");
  const [busy, setBusy] = useState(false);
  const { keys, wrong } = useMemo(() => publicKeys(text), [text]);

  const change: Change = {
    op,
    keys: op === "reset-epoch" ? [] : keys,
    role,
    ...(name.trim() && { name: name.trim() }),
    epoch,
  };
  const effect = preview(membersOf(members), change, self, unlisted);
  const replacesUnlisted = op === "replace" && unlisted > 0;
  const isTouched = op === "reset-epoch" ? epoch !== "" : keys.length > 0;
  const extra = [
    ...(op === "reset-epoch"
      ? [`The epoch becomes ${epoch}: commits of that epoch and of later ones count no longer.`]
      : []),
    ...(change.name ? [`The group is called ${change.name}.`] : []),
    ...(replacesUnlisted
      ? [`Of ${plural(unlisted, "member")} that this page does not list, each leaves that you do not name.`]
      : []),
  ];
  const send = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    await onSend(change);
    setBusy(false);
  };
  const isNaming = TAKES_ROLE.includes(op);

  return (
    <Section title="Change members">
      <form class="narrow" onSubmit={send}>
        <Field label="Change">
          {(props) => (
            <select {...props} value={op} onChange={({ currentTarget }) => setOp(currentTarget.value as typeof op)}>
              {OPS.map((known) => (
                <option key={known} value={known}>
                  {TITLES[known]}
                </option>
              ))}
            </select>
          )}
        </Field>
        {op === "reset-epoch" ? (
          <Field
            label="Epoch"
            hint="For a group whose order of commits does not go on. Clients must agree on the state before."
          >
            {(props) => (
              <input
                {...props}
                inputMode="numeric"
                value={epoch}
                autocomplete="off"
                onInput={({ currentTarget }) => setEpoch(currentTarget.value.trim())}
              />
            )}
          </Field>
        ) : (
          <KeyField
            label="Keys"
            hint={HINTS[op] ?? "npub or hex, one a line."}
            text={text}
            wrong={wrong}
            onText={setText}
          />
        )}
        {isNaming && (
          <Field label="Role of new members">
            {(props) => (
              <select {...props} value={role} onChange={({ currentTarget }) => setRole(currentTarget.value as Role)}>
                <option value="member">Member</option>
                <option value="admin">Group admin</option>
              </select>
            )}
          </Field>
        )}
        {isNaming && (
          <Field label="New name of the group" hint="Empty: the name stays.">
            {(props) => (
              <input
                {...props}
                value={name}
                autocomplete="off"
                onInput={({ currentTarget }) => setName(currentTarget.value)}
              />
            )}
          </Field>
        )}
        {isTouched && <PreviewList preview={effect} extra={extra} />}
        {isTouched && unlisted > 0 && (
          <Notice tone="plain">
            This page knows {plural(members.length, "member")} of {plural(members.length + unlisted, "member")}, so the
            preview may take a present member for a new one.
          </Notice>
        )}
        {isTouched && <Faults faults={effect.faults} />}
        <div class="actions">
          <Button
            tone={op === "remove" || effect.leaves.length > 0 || replacesUnlisted ? "danger" : "main"}
            type="submit"
            busy={busy}
            disabled={effect.faults.length > 0 || wrong.length > 0}
          >
            Sign and send
          </Button>
          <Button tone="quiet" onClick={onClose}>
            Close
          </Button>
        </div>
      </form>
    </Section>
  );
}

// The effect of a roster before it is signed, and the relay's answer after it.

import type { ComponentChildren } from "preact";
import { plural } from "../format";
import { shortId } from "../keys";
import type { Answer } from "../relay";
import type { Preview } from "../roster";
import type { Role } from "../types";
import { Key, Notice } from "./basic";

export const ROLES: Record<Role, string> = { member: "member", admin: "group admin" };

function Line({ sign, tone, children }: { sign: string; tone: string; children: ComponentChildren }) {
  return (
    <li class={tone}>
      <span class="sign" aria-hidden="true">
        {sign}
      </span>
      <span>{children}</span>
    </li>
  );
}

// Most keys that a preview lists of each sort; it counts the others.
const LISTED_MAX = 50;

function Rest({ all, words }: { all: number; words: string }) {
  return all > LISTED_MAX ? (
    <li>
      and {plural(all - LISTED_MAX, "key")} more {words}
    </li>
  ) : null;
}

export function PreviewList({ preview, extra }: { preview: Preview; extra?: string[] }) {
  const { joins, leaves, roles, unchanged, membersAfter, adminsAfter } = preview;
  return (
    <div class="preview" role="status" aria-label="Preview">
      <p class="preview-title">What will change</p>
      <ul>
        {extra?.map((words) => (
          <Line key={words} sign="·" tone="">
            {words}
          </Line>
        ))}
        {joins.slice(0, LISTED_MAX).map(({ key, role }) => (
          <Line key={key} sign="+" tone="good">
            <Key hex={key} inText /> joins as {ROLES[role]}
          </Line>
        ))}
        <Rest all={joins.length} words="join" />
        {leaves.slice(0, LISTED_MAX).map((key) => (
          <Line key={key} sign="−" tone="bad">
            <Key hex={key} inText /> leaves, and gets no further message
          </Line>
        ))}
        <Rest all={leaves.length} words="leave" />
        {roles.slice(0, LISTED_MAX).map(({ key, to }) => (
          <Line key={key} sign="~" tone="warn">
            <Key hex={key} inText /> becomes {ROLES[to]}
          </Line>
        ))}
        <Rest all={roles.length} words="change their role" />
        {unchanged.slice(0, LISTED_MAX).map((key) => (
          <Line key={key} sign="=" tone="muted">
            <Key hex={key} inText /> stays as it is
          </Line>
        ))}
      </ul>
      <p class="hint">
        Afterwards: {plural(membersAfter, "member")}, {plural(adminsAfter, "of them an admin", "of them admins")}.
      </p>
    </div>
  );
}

export function Faults({ faults }: { faults: string[] }) {
  return (
    <>
      {faults.map((fault) => (
        <Notice key={fault} tone="warn">
          {fault}
        </Notice>
      ))}
    </>
  );
}

// The relay's answer in words. `done` says what was done, if all was accepted.
export function AnswerNotice({ answers, done }: { answers: Answer[]; done: string }) {
  const last = answers.at(-1);
  if (!last) return null;
  if (last.accepted) {
    return (
      <Notice tone="good">
        <p>{done}</p>
        {last.reason && <p>The relay says: {last.reason}</p>}
        <p class="hint">
          Event <code>{shortId(last.event.id)}</code>
        </p>
      </Notice>
    );
  }
  const isStale = last.reason.includes(" is not above ");
  return (
    <Notice tone="bad">
      <p>The relay refuses this: {last.reason}</p>
      {isStale && (
        <p>Somebody else changed the group in between. The page shows it as it is now: repeat what is still wanted.</p>
      )}
      {answers.length > 1 && (
        <p>
          The {plural(answers.length - 1, "event")} before it {answers.length === 2 ? "is" : "are"} in force.
        </p>
      )}
    </Notice>
  );
}

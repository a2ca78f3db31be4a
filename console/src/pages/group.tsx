// One group: its members, a form for each change, and its rosters as a timeline.

import { useRef, useState } from "preact/hooks";
import { ago, count, date, plural } from "../format";
import { npub, shortId } from "../keys";
import { type Answer, publish, now } from "../relay";
import { type Change, membersOf, preview, template } from "../roster";
import { go } from "../route";
import { announcement, inspected, login } from "../state";
import type { Group, Member, RosterEntry } from "../types";
import { verb } from "../roster";
import { Badge, Button, Copy, Empty, Facts, Key, Notice, Page, Section } from "../ui/basic";
import { AnswerNotice } from "../ui/preview";
import { Loaded, useResource } from "../ui/resource";
import { Table } from "../ui/table";
import { ChangeForm, type Draft } from "./change";
import { sourceWords } from "./groups";

// Interval after which the page asks for the group again, in milliseconds.
const EVERY_MS = 15_000;
// Most members that the page lists.
const LISTED_MAX = 500;

function Members({ group, onDraft }: { group: Group; onDraft: (draft: Draft) => void }) {
  const [filter, setFilter] = useState("");
  const word = filter.trim().toLowerCase();
  const fitting = group.members.filter(({ pubkey, npub: name }) => pubkey.includes(word) || name.includes(word));
  const draft = (op: Draft["op"], { pubkey }: Member) => onDraft({ op, text: npub(pubkey) });
  if (group.members.length === 0) return <Empty title="No members">Nobody is in this group now. Add a key.</Empty>;
  return (
    <>
      {group.members.length > 10 && (
        <input
          class="filter"
          type="search"
          aria-label="Filter members by key"
          placeholder="Filter by key"
          onInput={({ currentTarget }) => setFilter(currentTarget.value)}
        />
      )}
      <Table
        caption="Members"
        rows={fitting.slice(0, LISTED_MAX)}
        id={({ pubkey }) => pubkey}
        columns={[
          { title: "Key", cell: ({ pubkey }) => <Key hex={pubkey} /> },
          {
            title: "Role",
            cell: ({ role }) => (role === "admin" ? <Badge tone="good">group admin</Badge> : "member"),
          },
          {
            title: "Actions",
            isActions: true,
            cell: (member) => (
              <>
                <Button
                  tone="quiet"
                  onClick={() => draft(member.role === "admin" ? "demote" : "promote", member)}
                  aria-label={`${member.role === "admin" ? "Demote" : "Promote"} ${npub(member.pubkey).slice(0, 12)}`}
                >
                  {member.role === "admin" ? "Demote" : "Promote"}
                </Button>
                <Button
                  tone="quiet"
                  onClick={() => draft("remove", member)}
                  aria-label={`Remove ${npub(member.pubkey).slice(0, 12)}`}
                >
                  Remove
                </Button>
              </>
            ),
          },
        ]}
      />
      {unlisted(group) > 0 && (
        <p class="hint">
          The relay lists the first {count(group.members.length)} of {count(group.member_count)} members.
        </p>
      )}
      {fitting.length > LISTED_MAX && (
        <p class="hint">{plural(fitting.length - LISTED_MAX, "member")} more; filter by key.</p>
      )}
    </>
  );
}

// Most keys that an entry of the timeline names; it counts the others.
const NAMED_MAX = 8;

function Timeline({ roster }: { roster: RosterEntry[] }) {
  if (roster.length === 0) {
    return (
      <Empty title="No rosters">
        This group was made by gift wraps or by the access service, and no roster changed it.
      </Empty>
    );
  }
  return (
    <ol class="timeline">
      {roster.map((entry) => (
        <li key={entry.id} class={`op-${entry.op}`}>
          <p>
            <Key hex={entry.by} inText /> <strong>{verb(entry)}</strong>{" "}
            {entry.subjects.slice(0, NAMED_MAX).map((key) => (
              <Key key={key} hex={key} inText />
            ))}
            {entry.subjects.length > NAMED_MAX && ` and ${plural(entry.subjects.length - NAMED_MAX, "more key")}`}
          </p>
          <p class="hint">
            <time dateTime={date(entry.created_at)} title={date(entry.created_at)}>
              {ago(entry.created_at)}
            </time>
            {` · sequence ${entry.seq} · event `}
            <code>{shortId(entry.id)}</code>
            {" · "}
            <button type="button" class="link" onClick={() => inspect(entry)}>
              Inspect
            </button>
          </p>
        </li>
      ))}
    </ol>
  );
}

function inspect({ event }: RosterEntry): void {
  inspected.value = JSON.stringify(event, null, 2);
  go("#/inspector");
}

// Members that the relay counts and does not list.
function unlisted({ members, member_count: all }: Group): number {
  return Math.max(0, all - members.length);
}

interface Done {
  answers: Answer[];
  words: string;
}

export function GroupPage({ id }: { id: string }) {
  const resource = useResource<Group>(`groups/${encodeURIComponent(id)}`, EVERY_MS);
  const [draft, setDraft] = useState<Draft | null>(null);
  const [done, setDone] = useState<Done | null>(null);
  const [error, setError] = useState<string | null>(null);
  const form = useRef<HTMLDivElement>(null);

  const open = (next: Draft) => {
    setDraft(next);
    setDone(null);
    setError(null);
    requestAnimationFrame(() => {
      form.current?.scrollIntoView({ block: "nearest" });
      form.current?.querySelector<HTMLElement>("textarea, select, input")?.focus({ preventScroll: true });
    });
  };
  const send = async (group: Group, change: Change) => {
    setError(null);
    try {
      const answers = await publish([template(group.group_id, group.seq + 1, change, now())]);
      const isAccepted = answers.at(-1)?.accepted === true;
      const effect = preview(membersOf(group.members), change, undefined, unlisted(group));
      const words = `The roster is in force, and the group has ${plural(effect.membersAfter, "member")}.`;
      setDone({ answers, words });
      announcement.value = isAccepted ? words : "The relay refused the roster.";
      if (isAccepted) setDraft(null);
      resource.reload();
    } catch (reason) {
      setError(reason instanceof Error ? reason.message : String(reason));
    }
  };
  const session = login.value?.session;
  const self = session?.role === "group_admin" ? session.pubkey : undefined;
  const isHidden = resource.error?.status === 404;

  return (
    <Page
      title={resource.data?.display_name || shortId(id)}
      lead={
        <span class="inline">
          <code>{shortId(id)}</code>
          <Copy text={id} label="the group's id" />
          <a href="#/groups">All groups</a>
        </span>
      }
      actions={
        resource.data && (
          <Button tone="main" onClick={() => open({ op: "add", text: "" })}>
            Change members
          </Button>
        )
      }
    >
      {isHidden && (
        <Empty title="No such group">
          It does not exist here, or you are none of its admins. <a href="#/groups">All groups</a>
        </Empty>
      )}
      {done && <AnswerNotice answers={done.answers} done={done.words} />}
      {error && <Notice tone="bad">{error}</Notice>}
      {!isHidden && (
        <Loaded resource={resource} what="Reading the group…">
          {(group) => (
            <>
              <div ref={form}>
                {draft && (
                  <ChangeForm
                    key={`${draft.op} ${draft.text}`}
                    members={group.members}
                    unlisted={unlisted(group)}
                    start={draft}
                    self={self}
                    onSend={(change) => send(group, change)}
                    onClose={() => setDraft(null)}
                  />
                )}
              </div>
              <Section title="Facts">
                <Facts
                  rows={[
                    ["Members", count(group.member_count)],
                    ["Admins", count(group.admin_count)],
                    ["Epoch", count(group.last_epoch)],
                    ["Last activity", ago(group.last_activity)],
                    [
                      "Founded",
                      <time dateTime={date(group.created_at)} title={date(group.created_at)}>
                        {ago(group.created_at)}
                      </time>,
                    ],
                    ["Members by", sourceWords(group.source)],
                    ["Sequence", count(group.seq)],
                    ["Order of commits", group.strict ? "strict: one commit for each epoch" : "not strict"],
                  ]}
                />
              </Section>
              <Section title="Members">
                <Members group={group} onDraft={open} />
              </Section>
              <Section title="Roster history" about="Newest first; the newest 200.">
                <Timeline roster={group.roster} />
              </Section>
            </>
          )}
        </Loaded>
      )}
    </Page>
  );
}

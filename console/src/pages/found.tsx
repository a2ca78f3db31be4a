// Founding a group: one roster (450) for its admins, and one more for its other members.

import { useMemo, useState } from "preact/hooks";
import { publicKeys } from "../keys";
import { type Answer, now, publish } from "../relay";
import { type Change, isGroupId, preview, template } from "../roster";
import { groupLink } from "../route";
import { announcement } from "../state";
import type { EventTemplate, Role } from "../types";
import { Button, Field, Notice, Page, Section } from "../ui/basic";
import { KeyField } from "../ui/keyfield";
import { AnswerNotice, Faults, PreviewList } from "../ui/preview";

// The rosters that found a group: with its admins first, since one roster gives all its keys one role.
export function foundingChanges(admins: string[], members: string[], name: string): Change[] {
  const rest = members.filter((key) => !admins.includes(key));
  const founders: [string[], Role] = admins.length > 0 ? [admins, "admin"] : [rest, "member"];
  const changes: Change[] = [{ op: "bootstrap", keys: founders[0], role: founders[1], ...(name && { name }) }];
  if (admins.length > 0 && rest.length > 0) changes.push({ op: "add", keys: rest, role: "member" });
  return changes;
}

function newId(): string {
  const random = crypto.getRandomValues(new Uint8Array(6));
  return `grp_${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function FoundPage() {
  const [id, setId] = useState(newId);
  const [name, setName] = useState("");
  const [adminText, setAdminText] = useState("");
  const [memberText, setMemberText] = useState("");
  const [busy, setBusy] = useState(false);
  const [answers, setAnswers] = useState<Answer[]>([]);
  const [error, setError] = useState<string | null>(null);

  const admins = useMemo(() => publicKeys(adminText), [adminText]);
  const members = useMemo(() => publicKeys(memberText), [memberText]);
  const changes = foundingChanges(admins.keys, members.keys, name.trim());
  const everyone = new Map<string, Role>();
  for (const { keys, role } of changes) for (const key of keys) everyone.set(key, role);
  const effects = changes.map((change) => preview(new Map(), change));
  const faults = [...new Set(effects.flatMap(({ faults: found }) => found))];
  const seen = preview(new Map(), { op: "add", keys: [], role: "member" });
  seen.joins = [...everyone].map(([key, role]) => ({ key, role }));
  seen.membersAfter = everyone.size;
  seen.adminsAfter = admins.keys.length;
  const isIdWrong = !isGroupId(id);
  const isReady = !isIdWrong && faults.length === 0 && admins.wrong.length === 0 && members.wrong.length === 0;
  const isDone = answers.length > 0 && answers.at(-1)?.accepted === true;

  const found = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const templates: EventTemplate[] = changes.map((change, at) => template(id, at + 1, change, now()));
      const given = await publish(templates);
      setAnswers(given);
      announcement.value = given.at(-1)?.accepted ? "The group is founded." : "The relay refused the founding.";
    } catch (reason) {
      setError(reason instanceof Error ? reason.message : String(reason));
    }
    setBusy(false);
  };

  return (
    <Page
      title="Found a group"
      lead={
        <>
          The relay takes this from an admin key. <a href="#/groups">All groups</a>
        </>
      }
    >
      {isDone ? (
        <Section title={name || id}>
          <AnswerNotice answers={answers} done="The group is founded. Its members read and write at once." />
          <div class="actions">
            <a class="button main" href={groupLink(id)}>
              Open the group
            </a>
          </div>
        </Section>
      ) : (
        <form class="section narrow" onSubmit={found}>
          <Field
            label="Id"
            hint={
              <>
                The group's <code>h</code>, which clients put into each message. It cannot be changed later.
              </>
            }
            error={isIdWrong ? "1 to 128 letters, digits or _ . : - and a letter or digit first." : null}
          >
            {(props) => (
              <input
                {...props}
                value={id}
                spellcheck={false}
                autocomplete="off"
                required
                onInput={({ currentTarget }) => setId(currentTarget.value.trim())}
              />
            )}
          </Field>
          <Field label="Name" hint="Shown to members and to admins; may stay empty.">
            {(props) => (
              <input
                {...props}
                value={name}
                autocomplete="off"
                onInput={({ currentTarget }) => setName(currentTarget.value)}
              />
            )}
          </Field>
          <KeyField
            label="Group admins"
            hint="npub or hex, one a line. They may change the group's members later."
            text={adminText}
            wrong={admins.wrong}
            onText={setAdminText}
          />
          <KeyField
            label="Members"
            hint="npub or hex, one a line."
            text={memberText}
            wrong={members.wrong}
            onText={setMemberText}
          />
          {everyone.size > 0 && (
            <PreviewList
              preview={seen}
              extra={[
                `Group ${name.trim() || id} is founded, by ${changes.length === 1 ? "one roster" : "two rosters"}.`,
              ]}
            />
          )}
          {everyone.size > 0 && <Faults faults={faults} />}
          {everyone.size > 0 && admins.keys.length === 0 && (
            <Notice tone="plain">Without a group admin only the relay's admin keys can change this group.</Notice>
          )}
          {error && <Notice tone="bad">{error}</Notice>}
          <AnswerNotice answers={answers} done="" />
          {answers.length > 1 && <a href={groupLink(id)}>Open the group as it is now</a>}
          <div class="actions">
            <Button tone="main" type="submit" busy={busy} disabled={!isReady}>
              Sign and found
            </Button>
            <a class="button quiet" href="#/groups">
              Back
            </a>
          </div>
        </form>
      )}
    </Page>
  );
}

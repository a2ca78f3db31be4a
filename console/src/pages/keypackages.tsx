// KeyPackages: the stock of each owner, requests for more (447), and those that failed verification.

import { useState } from "preact/hooks";
import { ago, count, date } from "../format";
import { publicKey, shortId, shortNpub } from "../keys";
import { now, publish } from "../relay";
import { announcement, login } from "../state";
import type { GroupSummary, Groups, Owner, Owners, RefusedKeyPackages } from "../types";
import { Badge, Button, Empty, Field, Key, Notice, Page, Section } from "../ui/basic";
import { Listed, Loaded, usePages, useResource } from "../ui/resource";
import { Table } from "../ui/table";

const ownersOf = ({ owners }: Owners) => owners;
const groupsOf = ({ groups }: Groups) => groups;
const REQUEST = JSON.stringify({ reason: "operator", note: "please publish new KeyPackages" });

interface Told {
  tone: "good" | "bad";
  words: string;
}

function useAsk(): { asking: string | null; asked: Set<string>; told: Told | null; ask: (owner: string) => void } {
  const [asking, setAsking] = useState<string | null>(null);
  const [asked, setAsked] = useState<Set<string>>(new Set());
  const [told, setTold] = useState<Told | null>(null);
  const ask = async (owner: string) => {
    setAsking(owner);
    try {
      const [answer] = await publish([{ kind: 447, created_at: now(), tags: [["p", owner]], content: REQUEST }]);
      const isAccepted = answer?.accepted === true;
      if (isAccepted) setAsked((before) => new Set(before).add(owner));
      setTold(
        isAccepted
          ? {
              tone: "good",
              words: `${shortNpub(owner)} is asked for KeyPackages. Its client publishes them when it is next online.`,
            }
          : { tone: "bad", words: `The relay refuses the request: ${answer?.reason ?? "no answer"}` },
      );
      announcement.value = isAccepted ? "The owner is asked." : "The relay refused the request.";
    } catch (reason) {
      setTold({ tone: "bad", words: reason instanceof Error ? reason.message : String(reason) });
    }
    setAsking(null);
  };
  return { asking, asked, told, ask: (owner) => void ask(owner) };
}

function Stock({ path, isOperator, search }: { path: string; isOperator: boolean; search: string }) {
  const pages = usePages<Owners, Owner>(path, ownersOf);
  const { asking, asked, told, ask } = useAsk();
  const none = search ? (
    <Empty title="No such owner">This key has no KeyPackage here, and never had one.</Empty>
  ) : (
    <Empty title="No KeyPackages">They are here as soon as clients publish some.</Empty>
  );
  return (
    <>
      {told && <Notice tone={told.tone}>{told.words}</Notice>}
      <Listed pages={pages} what="Reading the stock…" empty={none}>
        {(rows) => (
          <Table
            caption="Stock of KeyPackages by owner"
            rows={rows}
            id={({ owner }) => owner}
            columns={[
              { title: "Owner", cell: ({ owner }) => <Key hex={owner} /> },
              { title: "To be given once", number: true, cell: ({ unclaimed }) => count(unclaimed) },
              { title: "Of last resort", number: true, cell: ({ last_resort: last }) => count(last) },
              {
                title: "Stock",
                cell: ({ low, low_watermark: mark }) => {
                  if (low === null) return <span class="muted">not told: no message to your groups yet</span>;
                  return low ? <Badge tone="warn">low: under {mark}</Badge> : <Badge tone="good">enough</Badge>;
                },
              },
              ...(isOperator
                ? [
                    {
                      title: "Actions",
                      isActions: true,
                      cell: ({ owner }: Owner) => (
                        <Button
                          tone="quiet"
                          busy={asking === owner}
                          disabled={asking !== null || asked.has(owner)}
                          aria-label={`${asked.has(owner) ? "Asked" : "Ask for more"}: ${shortNpub(owner)}`}
                          onClick={() => ask(owner)}
                        >
                          {asked.has(owner) ? "Asked" : "Ask for more"}
                        </Button>
                      ),
                    },
                  ]
                : []),
            ]}
          />
        )}
      </Listed>
    </>
  );
}

function Refused() {
  const resource = useResource<RefusedKeyPackages>("keypackages/refused");
  return (
    <Section
      title="Failed verification"
      about="The newest 200 since the start of this instance. verify_keypackages says whether it refuses them."
    >
      <Loaded resource={resource} what="Reading the refusals…">
        {({ refused }) =>
          refused.length === 0 ? (
            <Empty title="None failed">Every KeyPackage since the start was right.</Empty>
          ) : (
            <Table
              caption="KeyPackages that failed verification"
              rows={refused}
              id={({ event_id: id, at }) => `${id} ${at}`}
              columns={[
                {
                  title: "When",
                  cell: ({ at }) => (
                    <time dateTime={date(at)} title={date(at)}>
                      {ago(at)}
                    </time>
                  ),
                },
                { title: "Owner", wide: true, cell: ({ owner }) => <Key hex={owner} /> },
                { title: "Event", cell: ({ event_id: id }) => <code title={id}>{shortId(id)}</code> },
                {
                  title: "Event was",
                  cell: ({ refused: isRefused }) =>
                    isRefused ? <Badge tone="bad">refused</Badge> : <Badge tone="warn">let pass</Badge>,
                },
                { title: "Fault", wide: true, cell: ({ reason }) => reason },
              ]}
            />
          )
        }
      </Loaded>
    </Section>
  );
}

function OperatorStock() {
  const [search, setSearch] = useState("");
  const [error, setError] = useState<string | null>(null);
  const find = (event: Event) => {
    event.preventDefault();
    const text = String(new FormData(event.currentTarget as HTMLFormElement).get("owner") ?? "").trim();
    const key = publicKey(text);
    setError(text && !key ? "No public key. Write npub1… or 64 hex digits, or leave it empty for all." : null);
    if (!text || key) setSearch(key ?? "");
  };
  return (
    <>
      <form class="search" role="search" onSubmit={find}>
        <Field label="Owner" hint="npub or hex; empty for all owners." error={error}>
          {(props) => <input {...props} type="search" name="owner" autocomplete="off" spellcheck={false} />}
        </Field>
        <Button type="submit">Search</Button>
      </form>
      <Stock path={`keypackages${search ? `?owner=${search}` : ""}`} isOperator search={search} />
      <Refused />
    </>
  );
}

function GroupStock() {
  const groups = usePages<Groups, GroupSummary>("groups", groupsOf);
  const [chosen, setChosen] = useState<string | null>(null);
  const group = chosen ?? groups.rows[0]?.group_id;
  return (
    <Listed
      pages={groups}
      what="Reading your groups…"
      empty={<Empty title="No groups">You are admin of no group now.</Empty>}
    >
      {(rows) => (
        <>
          <Field label="Group">
            {(props) => (
              <select {...props} value={group} onChange={({ currentTarget }) => setChosen(currentTarget.value)}>
                {rows.map(({ group_id: id, display_name: name }) => (
                  <option key={id} value={id}>
                    {name || id}
                  </option>
                ))}
              </select>
            )}
          </Field>
          {group && (
            <Stock key={group} path={`keypackages?group=${encodeURIComponent(group)}`} isOperator={false} search="" />
          )}
        </>
      )}
    </Listed>
  );
}

export function KeyPackagesPage() {
  const isOperator = login.value?.session.role === "operator";
  return (
    <Page
      title="KeyPackages"
      lead={
        isOperator
          ? "The stock of each owner. An owner without any cannot be invited."
          : "The stock of the members of your groups."
      }
    >
      {isOperator ? <OperatorStock /> : <GroupStock />}
    </Page>
  );
}

// Access: the orders that hold without a restart (NIP-86), and who gave them.

import { useState } from "preact/hooks";
import { manage } from "../api";
import { ago, date, plural } from "../format";
import { publicKey, shortId, shortNpub } from "../keys";
import { announcement } from "../state";
import type { Access } from "../types";
import { Badge, Button, Empty, Field, Key, Notice, Page, Section } from "../ui/basic";
import { Loaded, useResource } from "../ui/resource";
import { Table } from "../ui/table";
import { RelayTexts } from "./texts";

export type Order = (method: string, params: unknown[], done: string) => Promise<boolean>;

interface Item {
  subject: string;
  reason: string;
}

interface Addable {
  label: string;
  hint: string;
  button: string;
  method: string;
  done: string;
  // The parameter for a subject, or the words that say what is wrong.
  read: (text: string) => { value: string | number } | { fault: string };
  hasReason: boolean;
  danger?: boolean;
}

function AddForm({ what, order }: { what: Addable; order: Order }) {
  const [subject, setSubject] = useState("");
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const send = async (event: Event) => {
    event.preventDefault();
    const read = what.read(subject.trim());
    if ("fault" in read) {
      setError(read.fault);
      return;
    }
    setError(null);
    setBusy(true);
    const isDone = await order(what.method, what.hasReason ? [read.value, reason] : [read.value], what.done);
    setBusy(false);
    if (isDone) {
      setSubject("");
      setReason("");
    }
  };
  return (
    <form class="add-form" onSubmit={send}>
      <Field label={what.label} hint={what.hint} error={error}>
        {(props) => (
          <input
            {...props}
            value={subject}
            spellcheck={false}
            autocomplete="off"
            required
            onInput={({ currentTarget }) => setSubject(currentTarget.value)}
          />
        )}
      </Field>
      {what.hasReason && (
        <Field label="Reason" hint="For the list of changes.">
          {(props) => (
            <input
              {...props}
              value={reason}
              maxLength={128}
              autocomplete="off"
              onInput={({ currentTarget }) => setReason(currentTarget.value)}
            />
          )}
        </Field>
      )}
      <Button tone={what.danger ? "danger" : "plain"} type="submit" busy={busy}>
        {what.button}
      </Button>
    </form>
  );
}

function Items({
  title,
  items,
  show,
  undo,
  order,
  none,
}: {
  title: string;
  items: Item[];
  show: "key" | "event" | "text";
  undo: { method: string; button: string; done: string; param?: (subject: string) => unknown };
  order: Order;
  none: string;
}) {
  const [busy, setBusy] = useState<string | null>(null);
  if (items.length === 0) return <Empty title={none} />;
  const lift = async (subject: string) => {
    setBusy(subject);
    await order(undo.method, [undo.param ? undo.param(subject) : subject], undo.done);
    setBusy(null);
  };
  const name = (subject: string) => (show === "key" ? shortNpub(subject) : shortId(subject));
  return (
    <Table
      caption={title}
      rows={items}
      id={({ subject }) => subject}
      columns={[
        {
          title: show === "key" ? "Key" : show === "event" ? "Event" : "Entry",
          cell: ({ subject }) =>
            show === "key" ? <Key hex={subject} /> : <code title={subject}>{name(subject)}</code>,
        },
        { title: "Reason", cell: ({ reason }) => reason || "–" },
        {
          title: "Actions",
          isActions: true,
          cell: ({ subject }) => (
            <Button
              tone="quiet"
              busy={busy === subject}
              disabled={busy !== null}
              aria-label={`${undo.button} ${name(subject)}`}
              onClick={() => void lift(subject)}
            >
              {undo.button}
            </Button>
          ),
        },
      ]}
    />
  );
}

const readKey: Addable["read"] = (text) => {
  const value = publicKey(text);
  return value ? { value } : { fault: "No public key. Write npub1… or 64 hex digits." };
};
const readEvent: Addable["read"] = (text) =>
  /^[0-9a-f]{64}$/.test(text) ? { value: text } : { fault: "No event id. Write its 64 lower-case hex digits." };
const readKind: Addable["read"] = (text) =>
  /^\d{1,5}$/.test(text) && Number(text) <= 65_535
    ? { value: Number(text) }
    : { fault: "No kind. Write a number of 0 to 65535." };

function Keys({ access, order }: { access: Access; order: Order }) {
  return (
    <>
      <Section title="Banned keys" about="A banned key neither publishes nor reads, and its connections end at once.">
        <AddForm
          order={order}
          what={{
            label: "Key to ban",
            hint: "npub or hex.",
            button: "Ban",
            method: "banpubkey",
            read: readKey,
            hasReason: true,
            danger: true,
            done: "The key is banned on every instance.",
          }}
        />
        <Items
          title="Banned keys"
          show="key"
          none="No key is banned"
          order={order}
          items={access.banned_keys.map(({ pubkey, reason }) => ({ subject: pubkey, reason }))}
          undo={{
            method: "unbanpubkey",
            button: "Lift the ban",
            done: "The ban is lifted; the key has its events back.",
          }}
        />
      </Section>
      <Section
        title="Residents"
        about={
          access.whitelist.length > 0
            ? "Keys of the configuration, and keys that were allowed here."
            : "The configuration lists no residents, so every key is one. Allowing a key only lifts its ban."
        }
      >
        <AddForm
          order={order}
          what={{
            label: "Key to allow",
            hint: "npub or hex.",
            button: "Allow",
            method: "allowpubkey",
            read: readKey,
            hasReason: true,
            done: "The key is allowed on every instance.",
          }}
        />
        <Items
          title="Allowed keys"
          show="key"
          none="No key was allowed here"
          order={order}
          items={access.allowed_keys.map(({ pubkey, reason }) => ({ subject: pubkey, reason: reason ?? "" }))}
          undo={{ method: "unallowpubkey", button: "Take off", done: "The key is no resident by this list." }}
        />
        {access.whitelist.length > 0 && (
          <details>
            <summary>{plural(access.whitelist.length, "key")} of the configuration (pubkey_whitelist)</summary>
            <ul class="keys">
              {access.whitelist.map((key) => (
                <li key={key}>
                  <Key hex={key} />
                </li>
              ))}
            </ul>
          </details>
        )}
        <details>
          <summary>{plural(access.admins.length, "admin key")} of the configuration (admin_pubkeys)</summary>
          <ul class="keys">
            {access.admins.map((key) => (
              <li key={key}>
                <Key hex={key} />
              </li>
            ))}
          </ul>
        </details>
      </Section>
    </>
  );
}

function Others({ access, order }: { access: Access; order: Order }) {
  const kinds = (list: Access["refused_kinds"]) => list.map((kind) => ({ subject: String(kind), reason: "" }));
  return (
    <>
      <Section title="Banned events" about="A banned event is neither taken nor served, whatever its kind.">
        <AddForm
          order={order}
          what={{
            label: "Event to ban",
            hint: "Its id, 64 hex digits.",
            button: "Ban",
            method: "banevent",
            read: readEvent,
            hasReason: true,
            danger: true,
            done: "The event is banned.",
          }}
        />
        <Items
          title="Banned events"
          show="event"
          none="No event is banned"
          order={order}
          items={access.banned_events.map(({ id, reason }) => ({ subject: id, reason }))}
          undo={{ method: "unbanevent", button: "Lift the ban", done: "The event is served again." }}
        />
      </Section>
      <Section title="Blocked addresses" about="Clients of these addresses are refused, and their connections end.">
        <AddForm
          order={order}
          what={{
            label: "Address to block",
            hint: "198.51.100.7, or a range.",
            button: "Block",
            method: "blockip",
            read: (value) => (value ? { value } : { fault: "Write an address." }),
            hasReason: true,
            danger: true,
            done: "The address is blocked.",
          }}
        />
        <Items
          title="Blocked addresses"
          show="text"
          none="No address is blocked"
          order={order}
          items={access.blocked_ips.map(({ ip, reason }) => ({ subject: ip, reason }))}
          undo={{ method: "unblockip", button: "Unblock", done: "The address is let in again." }}
        />
      </Section>
      <Section title="Kinds" about="The relay refuses events of a refused kind, and serves those that it has.">
        <AddForm
          order={order}
          what={{
            label: "Kind to refuse",
            hint: "Its number. Kinds 5 and 62 are always taken.",
            button: "Refuse",
            method: "disallowkind",
            read: readKind,
            hasReason: false,
            danger: true,
            done: "Events of this kind are refused.",
          }}
        />
        <Items
          title="Refused kinds"
          show="text"
          none="No kind is refused"
          order={order}
          items={kinds(access.refused_kinds)}
          undo={{ method: "allowkind", button: "Take again", done: "Events of this kind are taken.", param: Number }}
        />
        {access.allowed_kinds.length > 0 && (
          <p class="hint">The configuration takes these kinds alone: {access.allowed_kinds.join(", ")}.</p>
        )}
      </Section>
    </>
  );
}

function Audit({ audit }: { audit: Access["audit"] }) {
  return (
    <Section title="Changes" about="The last 256 orders: who changed what, and when." wide>
      {audit.length === 0 ? (
        <Empty title="No changes yet">Every order that is given here is listed.</Empty>
      ) : (
        <Table
          caption="Changes"
          rows={audit.map((entry, place) => ({ ...entry, place }))}
          id={({ at, place }) => `${at} ${place}`}
          columns={[
            {
              title: "When",
              cell: ({ at }) => (
                <time dateTime={date(at)} title={date(at)}>
                  {ago(at)}
                </time>
              ),
            },
            { title: "By", cell: ({ by }) => <Key hex={by} /> },
            { title: "Change", cell: ({ method }) => <Badge>{method}</Badge> },
            { title: "Subject", cell: ({ subject }) => <code title={subject}>{shortId(subject) || "–"}</code> },
            { title: "Reason", cell: ({ reason }) => reason || "–" },
          ]}
        />
      )}
    </Section>
  );
}

export function AccessPage() {
  const resource = useResource<Access>("access");
  const [told, setTold] = useState<{ tone: "good" | "bad"; words: string } | null>(null);
  const order: Order = async (method, params, done) => {
    try {
      await manage(method, params);
      setTold({ tone: "good", words: done });
      announcement.value = done;
      resource.reload();
      return true;
    } catch (reason) {
      const words = reason instanceof Error ? reason.message : String(reason);
      setTold({ tone: "bad", words: `The relay refuses this: ${words}` });
      return false;
    }
  };
  return (
    <Page title="Access" lead="Orders that hold at once on every instance, and outlive a restart. You sign each one.">
      {told && (
        <div class="told">
          <Notice tone={told.tone}>{told.words}</Notice>
        </div>
      )}
      <Loaded resource={resource} what="Reading the orders…">
        {(access) => (
          <>
            <div class="columns">
              <Keys access={access} order={order} />
              <Others access={access} order={order} />
              <RelayTexts access={access} order={order} />
            </div>
            <Audit audit={access.audit} />
          </>
        )}
      </Loaded>
    </Page>
  );
}

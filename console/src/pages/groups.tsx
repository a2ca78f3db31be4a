// Groups: a search, and the list of groups that the key may see.

import { useState } from "preact/hooks";
import { ago, count } from "../format";
import { publicKey } from "../keys";
import { groupLink } from "../route";
import { login } from "../state";
import type { GroupSummary, Groups } from "../types";
import { Button, Empty, Field, Page } from "../ui/basic";
import { Listed, usePages } from "../ui/resource";
import { Table } from "../ui/table";

const groupsOf = ({ groups }: Groups) => groups;

export function GroupLink({ group_id: id, display_name: name }: GroupSummary) {
  return (
    <a class="group-link" href={groupLink(id)}>
      <strong>{name || id}</strong>
      {name && <code>{id}</code>}
    </a>
  );
}

const SOURCES: Record<string, string> = { roster: "rosters", giftwrap: "gift wraps", acl: "access service" };

export function sourceWords(source: string): string {
  return SOURCES[source] ?? source;
}

export function GroupsPage() {
  const [search, setSearch] = useState("");
  const isOperator = login.value?.session.role === "operator";
  const asked = publicKey(search) ?? search;
  const pages = usePages<Groups, GroupSummary>(`groups${asked ? `?q=${encodeURIComponent(asked)}` : ""}`, groupsOf);
  const find = (event: Event) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    setSearch(String(data.get("q") ?? "").trim());
  };
  const none = search ? (
    <Empty title="No group fits">
      {isOperator
        ? "No group id begins so, and no member has this key."
        : "None of your groups begins so, or has this member."}
    </Empty>
  ) : isOperator ? (
    <Empty title="No groups yet">Found one, or let members do so by gift wraps.</Empty>
  ) : (
    <Empty title="No groups">You are admin of no group now.</Empty>
  );
  return (
    <Page
      title="Groups"
      lead={isOperator ? "Every managed group of this relay." : "The groups of which you are an admin."}
      actions={
        isOperator && (
          <a class="button main" href="#/found">
            Found a group
          </a>
        )
      }
    >
      <form class="search" role="search" onSubmit={find}>
        <Field label="Search" hint="The beginning of a group's id, or a member's key (npub or hex).">
          {(props) => <input {...props} type="search" name="q" autocomplete="off" spellcheck={false} />}
        </Field>
        <Button type="submit">Search</Button>
      </form>
      <Listed pages={pages} what="Reading the groups…" empty={none}>
        {(rows) => (
          <Table
            caption="Groups"
            rows={rows}
            id={({ group_id: id }) => id}
            columns={[
              { title: "Group", cell: GroupLink },
              { title: "Members", number: true, cell: ({ member_count: all }) => count(all) },
              { title: "Admins", number: true, cell: ({ admin_count: admins }) => count(admins) },
              { title: "Epoch", number: true, cell: ({ last_epoch: epoch }) => count(epoch) },
              { title: "Members by", cell: ({ source }) => sourceWords(source) },
              { title: "Founded", cell: ({ created_at: at }) => ago(at) },
            ]}
          />
        )}
      </Listed>
    </Page>
  );
}

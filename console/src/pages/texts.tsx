// The relay's name, description and icon, as NIP-11 and the home page show them.

import { useState } from "preact/hooks";
import type { Access } from "../types";
import { Button, Field, Section } from "../ui/basic";
import type { Order } from "./access";

const TEXTS = [
  { key: "name", label: "Name", method: "changerelayname" },
  { key: "description", label: "Description", method: "changerelaydescription" },
  { key: "icon", label: "Address of the icon", method: "changerelayicon" },
] as const;

function Text({ label, value, onSend }: { label: string; value: string; onSend: (text: string) => Promise<boolean> }) {
  const [text, setText] = useState(value);
  const [busy, setBusy] = useState(false);
  const send = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    await onSend(text.trim());
    setBusy(false);
  };
  return (
    <form class="add-form" onSubmit={send}>
      <Field label={label}>
        {(props) => (
          <input
            {...props}
            value={text}
            autocomplete="off"
            onInput={({ currentTarget }) => setText(currentTarget.value)}
          />
        )}
      </Field>
      <Button type="submit" busy={busy} disabled={text.trim() === value} aria-label={`Change: ${label}`}>
        Change
      </Button>
    </form>
  );
}

export function RelayTexts({ access, order }: { access: Access; order: Order }) {
  return (
    <Section title="The relay's texts" about="An empty text brings the configuration's value back.">
      {TEXTS.map(({ key, label, method }) => (
        <Text
          key={`${key} ${access[key] ?? ""}`}
          label={label}
          value={access[key] ?? ""}
          onSend={(text) => order(method, [text], `${label}: changed.`)}
        />
      ))}
    </Section>
  );
}

// Inspector: whether the relay would take an event from a reader and show it to that reader, and by which rule.

import { useState } from "preact/hooks";
import { post } from "../api";
import { publicKey } from "../keys";
import { announcement, inspected, login } from "../state";
import type { Diagnosis } from "../types";
import { Button, Field, Notice, Page } from "../ui/basic";

interface Verdict {
  title: string;
  isYes: boolean;
  words: string;
  reason: string;
  rule: string;
}

function verdicts({ write, read }: Diagnosis): Verdict[] {
  return [
    {
      title: "Publishing",
      isYes: write.allowed,
      words: write.allowed
        ? "The relay would accept this event from this reader."
        : "The relay would refuse this event.",
      reason: write.reason,
      rule: write.rule,
    },
    {
      title: "Reading",
      isYes: read.visible,
      words: read.visible
        ? "The relay shows this event to this reader."
        : "The relay hides this event from this reader.",
      reason: read.reason,
      rule: read.rule,
    },
  ];
}

function VerdictCard({ verdict: { title, isYes, words, reason, rule } }: { verdict: Verdict }) {
  return (
    <section class={`section verdict ${isYes ? "good" : "bad"}`} aria-label={title}>
      <h2>{title}</h2>
      <p class="verdict-words">
        <span aria-hidden="true">{isYes ? "✓" : "✕"}</span> {words}
      </p>
      {reason && (
        <p>
          <span class="muted">Reason:</span> {reason}
        </p>
      )}
      <p>
        <span class="muted">Rule:</span> <strong>{rule}</strong> <span class="muted">of docs/rules.md</span>
      </p>
    </section>
  );
}

// The fault of a text that is no event, in words, or null.
function eventFault(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && "id" in value && "sig" in value) return null;
    return "This is JSON and no signed event. An event has id, pubkey, created_at, kind, tags, content and sig.";
  } catch (reason) {
    return `This is no JSON: ${reason instanceof Error ? reason.message : String(reason)}`;
  }
}

export function InspectorPage() {
  const [text, setText] = useState(inspected.value);
  const [reader, setReader] = useState("");
  const [diagnosis, setDiagnosis] = useState<Diagnosis | null>(null);
  const [faults, setFaults] = useState<{ event?: string; reader?: string; answer?: string }>({});
  const [busy, setBusy] = useState(false);
  const isOperator = login.value?.session.role === "operator";

  const ask = async (submitted: Event) => {
    submitted.preventDefault();
    const key = reader.trim() ? publicKey(reader) : null;
    const event = eventFault(text);
    setDiagnosis(null);
    if (event || key === undefined) {
      setFaults({
        ...(event && { event }),
        ...(key === undefined && { reader: "No public key. Write npub1… or 64 hex digits, or leave it empty." }),
      });
      return;
    }
    setFaults({});
    setBusy(true);
    try {
      const answer = await post<Diagnosis>("diagnose", { event: JSON.parse(text), reader: key });
      setDiagnosis(answer);
      announcement.value = verdicts(answer)
        .map(({ words }) => words)
        .join(" ");
    } catch (reason) {
      setFaults({ answer: reason instanceof Error ? reason.message : String(reason) });
    }
    setBusy(false);
  };
  const edit = (next: string) => {
    setText(next);
    inspected.value = next;
    setDiagnosis(null);
  };

  return (
    <Page
      title="Inspector"
      lead={
        isOperator
          ? "Why an event is accepted or refused, shown or hidden. Nothing is stored."
          : "Why an event of your groups is accepted or refused, shown or hidden. Nothing is stored."
      }
    >
      <form class="section" onSubmit={ask}>
        <Field label="Event" hint="A signed event as JSON, stored here or not." error={faults.event ?? null}>
          {(props) => (
            <textarea
              {...props}
              class="code"
              rows={10}
              spellcheck={false}
              autocomplete="off"
              required
              value={text}
              placeholder='{"id":"…","pubkey":"…","kind":445,"tags":[["h","…"]],"content":"…",…}'
              onInput={({ currentTarget }) => edit(currentTarget.value)}
            />
          )}
        </Field>
        <Field
          label="Reader"
          hint="The key that publishes or asks: npub or hex. Empty for a reader without a key."
          error={faults.reader ?? null}
        >
          {(props) => (
            <input
              {...props}
              spellcheck={false}
              autocomplete="off"
              value={reader}
              onInput={({ currentTarget }) => {
                setReader(currentTarget.value);
                setDiagnosis(null);
              }}
            />
          )}
        </Field>
        {faults.answer && <Notice tone="bad">{faults.answer}</Notice>}
        <div class="actions">
          <Button tone="main" type="submit" busy={busy}>
            Inspect
          </Button>
        </div>
      </form>
      {diagnosis && (
        <div class="columns">
          {verdicts(diagnosis).map((verdict) => (
            <VerdictCard key={verdict.title} verdict={verdict} />
          ))}
        </div>
      )}
    </Page>
  );
}

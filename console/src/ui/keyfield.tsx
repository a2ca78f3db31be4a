// A field for public keys, one a line, and the keys that it holds.

import { shortId } from "../keys";
import { Field } from "./basic";

export function KeyField({
  label,
  hint,
  text,
  wrong,
  onText,
  rows = 3,
}: {
  label: string;
  hint: string;
  text: string;
  wrong: string[];
  onText: (text: string) => void;
  rows?: number;
}) {
  const shown = wrong.slice(0, 3).map(shortId).join(", ") + (wrong.length > 3 ? "…" : "");
  const error = wrong.length > 0 ? `No public key: ${shown}. Write npub1… or 64 hex digits.` : null;
  return (
    <Field label={label} hint={hint} error={error}>
      {(props) => (
        <textarea
          {...props}
          rows={rows}
          spellcheck={false}
          autocomplete="off"
          value={text}
          onInput={({ currentTarget }) => onText(currentTarget.value)}
        />
      )}
    </Field>
  );
}

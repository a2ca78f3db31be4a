// A field for public keys, one a line, and the keys that it holds.

import { shortId } from "../keys";
import { Field } from "./basic";

// A secret key that is pasted by mistake is not shown again.
function shown(word: string): string {
  return word.startsWith("nsec1") ? "a secret key (nsec)" : shortId(word);
}

export function KeyField({
  label,
  hint,
  text,
  wrong,
  onText,
}: {
  label: string;
  hint: string;
  text: string;
  wrong: string[];
  onText: (text: string) => void;
}) {
  const words = wrong.slice(0, 3).map(shown).join(", ") + (wrong.length > 3 ? "…" : "");
  const error = wrong.length > 0 ? `No public key: ${words}. Write npub1… or 64 hex digits.` : null;
  return (
    <Field label={label} hint={hint} error={error}>
      {(props) => (
        <textarea
          {...props}
          rows={3}
          spellcheck={false}
          autocomplete="off"
          value={text}
          onInput={({ currentTarget }) => onText(currentTarget.value)}
        />
      )}
    </Field>
  );
}

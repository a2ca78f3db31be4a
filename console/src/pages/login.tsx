// The login: by an extension, or by a pasted key.

import { useEffect, useRef, useState } from "preact/hooks";
import { logIn } from "../api";
import { type Signer, extensionSigner, hasExtension, pastedSigner } from "../signer";
import { ended } from "../state";
import { Button, Field, Notice } from "../ui/basic";

// Times at which the page looks for an extension, in milliseconds: some come only after the page's own code.
const LOOKS_MS = [100, 500, 2_000];

function useExtension(): boolean {
  const [isThere, setThere] = useState(hasExtension);
  useEffect(() => {
    const timers = LOOKS_MS.map((wait) => setTimeout(() => setThere(hasExtension()), wait));
    return () => timers.forEach(clearTimeout);
  }, []);
  return isThere;
}

export function LoginPage() {
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState<"extension" | "paste" | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const isExtended = useExtension();

  const enter = async (way: "extension" | "paste", signerOf: () => Signer | Promise<Signer>) => {
    setBusy(way);
    setError(null);
    let signer: Signer | null = null;
    try {
      signer = await signerOf();
      await logIn(signer);
    } catch (reason) {
      signer?.forget();
      setError(reason instanceof Error ? reason.message : String(reason));
      setBusy(null);
    }
  };
  const paste = (event: Event) => {
    event.preventDefault();
    const field = input.current;
    if (!field) return;
    const text = field.value;
    // The field forgets the key at once, whatever comes of it.
    field.value = "";
    void enter("paste", () => pastedSigner(text));
  };

  return (
    <div class="login">
      <h1 id="page-title" tabIndex={-1}>
        Console
      </h1>
      <p class="lead">For the operator of this relay, and for admins of its groups.</p>
      {ended.value && <Notice tone="warn">{ended.value}</Notice>}
      {error && <Notice tone="bad">{error}</Notice>}
      {isExtended && (
        <>
          <section class="section" aria-label="Log in with an extension">
            <Button
              tone="main"
              busy={busy === "extension"}
              disabled={busy !== null}
              onClick={() => void enter("extension", extensionSigner)}
            >
              Log in with an extension
            </Button>
            <p class="hint">Your extension (NIP-07) signs. It asks you for the login, and for each change.</p>
          </section>
          <p class="or">or</p>
        </>
      )}
      <form class="section" onSubmit={paste}>
        <Field
          label="Secret key"
          hint="nsec1… or 64 hex digits. It stays in this page's memory, is never sent, and is gone when you log out."
        >
          {(props) => (
            <input
              {...props}
              ref={input}
              type="password"
              autocomplete="off"
              spellcheck={false}
              required
              placeholder="nsec1…"
            />
          )}
        </Field>
        <Button tone={isExtended ? "plain" : "main"} type="submit" busy={busy === "paste"} disabled={busy !== null}>
          Log in with the key
        </Button>
      </form>
      <p class="hint">
        The login is one signed event. The relay answers with a permission to read for 15 minutes; each change is signed
        by itself.{!isExtended && " With an extension that signs (NIP-07) no key need be pasted."}
      </p>
    </div>
  );
}

// The key that signs: that of a browser extension (NIP-07), or a pasted one, which stays in this module.

import { finalizeEvent, getPublicKey } from "nostr-tools/pure";
import { decode } from "nostr-tools/nip19";
import type { EventTemplate, SignedEvent } from "./types";

export interface Signer {
  readonly pubkey: string;
  // Whether each signature asks the person, as an extension does.
  readonly asks: boolean;
  sign(template: EventTemplate): Promise<SignedEvent>;
  // Forgets the key.
  forget(): void;
}

interface Nip07 {
  getPublicKey(): Promise<string>;
  signEvent(template: EventTemplate): Promise<SignedEvent>;
}

function extension(): Nip07 | undefined {
  return (window as unknown as { nostr?: Nip07 }).nostr;
}

export function hasExtension(): boolean {
  return extension() !== undefined;
}

export async function extensionSigner(): Promise<Signer> {
  const nostr = extension();
  if (!nostr) throw new Error("This browser has no extension that signs (NIP-07). Install one, or paste a key.");
  const pubkey = await nostr.getPublicKey();
  return { pubkey, asks: true, sign: (template) => nostr.signEvent(template), forget: () => {} };
}

const HEX_KEY = /^[0-9a-fA-F]{64}$/;

// A signer of a pasted key: nsec1…, or 64 hex digits.
export function pastedSigner(text: string): Signer {
  const secret = secretOf(text.trim());
  let pubkey: string;
  try {
    pubkey = getPublicKey(secret);
  } catch {
    throw new Error("This is no secret key: it is zero or too large. Paste the key that `rnostr keygen` printed.");
  }
  let isForgotten = false;
  return {
    pubkey,
    asks: false,
    async sign(template) {
      if (isForgotten) throw new Error("The key is forgotten. Log in again.");
      return finalizeEvent(template, secret);
    },
    forget() {
      isForgotten = true;
      secret.fill(0);
    },
  };
}

function secretOf(text: string): Uint8Array {
  if (HEX_KEY.test(text)) return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
  if (text.startsWith("npub1")) throw new Error("This is a public key (npub). The console signs, so paste the nsec.");
  try {
    const { type, data } = decode(text);
    if (type === "nsec") return data;
  } catch {
    // The words below tell what is wanted.
  }
  throw new Error("This is no secret key. Paste nsec1…, or 64 hex digits.");
}

// Public keys as people write them, and as they are shown.

import { decode, npubEncode } from "nostr-tools/nip19";

const HEX_KEY = /^[0-9a-f]{64}$/;

// The hex of a key in hex or npub, or undefined.
export function publicKey(text: string): string | undefined {
  const word = text.trim();
  if (HEX_KEY.test(word.toLowerCase())) return word.toLowerCase();
  try {
    const { type, data } = decode(word.replace(/^nostr:/, ""));
    return type === "npub" ? data : undefined;
  } catch {
    return undefined;
  }
}

// Keys out of a text with one on each line, or between commas and spaces; each once.
export function publicKeys(text: string): { keys: string[]; wrong: string[] } {
  const keys = new Set<string>();
  const wrong: string[] = [];
  for (const word of text.split(/[\s,;]+/).filter(Boolean)) {
    const key = publicKey(word);
    if (key) keys.add(key);
    else wrong.push(word);
  }
  return { keys: [...keys], wrong };
}

export function npub(hex: string): string {
  return HEX_KEY.test(hex) ? npubEncode(hex) : hex;
}

export function shortNpub(hex: string): string {
  const text = npub(hex);
  return text.length > 24 ? `${text.slice(0, 12)}…${text.slice(-6)}` : text;
}

export function shortId(id: string): string {
  return id.length > 24 ? `${id.slice(0, 10)}…${id.slice(-6)}` : id;
}

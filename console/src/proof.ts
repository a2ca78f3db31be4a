// NIP-98: a signed statement about one request, for the header `Authorization`.

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, randomBytes, utf8ToBytes } from "@noble/hashes/utils.js";
import type { Signer } from "./signer";

function now(): number {
  return Math.floor(Date.now() / 1000);
}

function base64(text: string): string {
  return btoa(String.fromCharCode(...utf8ToBytes(text)));
}

export async function proof(signer: Signer, url: string, body?: string): Promise<string> {
  // A nonce keeps two proofs of one second apart: the relay takes each proof of a POST once.
  const nonce = bytesToHex(randomBytes(8));
  const tags = [
    ["u", url],
    ["method", "POST"],
    ["nonce", nonce],
  ];
  // Browsers have `crypto.subtle` on https and on loopback alone; this code also runs on a page of plain http.
  if (body !== undefined) tags.push(["payload", bytesToHex(sha256(utf8ToBytes(body)))]);
  const event = await signer.sign({ kind: 27235, created_at: now(), tags, content: "" });
  return `Nostr ${base64(JSON.stringify(event))}`;
}

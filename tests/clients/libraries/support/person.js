// Persons with keys, and the events that they sign.

import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { bytesToHex } from 'nostr-tools/utils'

/** A person with a new key pair. */
export class Person {
  secret = generateSecretKey()
  key = getPublicKey(this.secret)

  get secretHex() {
    return bytesToHex(this.secret)
  }

  sign(kind, { content = '', tags = [], at = Math.floor(Date.now() / 1000) } = {}) {
    return this.finalize({ kind, content, tags, created_at: at })
  }

  /** Signs a template of a library, such as an AUTH event. */
  finalize({ kind, content = '', tags, created_at }) {
    return finalizeEvent({ kind, content, tags, created_at }, this.secret)
  }
}

/** A gift wrap to `recipient`, signed by a throw-away key. */
export function wrap(recipient, at) {
  return new Person().sign(1059, { content: 'sealed', tags: [['p', recipient.key]], at })
}

/** The roster by which `admin` founds a group. */
export function founding(admin, group, members) {
  const keys = members.map(member => ['p', member.key])
  return admin.sign(450, { tags: [['h', group], ['seq', '1'], ['op', 'bootstrap'], ...keys] })
}

/** A message to a group, signed by a throw-away key as MLS clients do. */
export function message(group, at) {
  return new Person().sign(445, { content: 'AAEAAg==', tags: [['h', group], ['k', '0']], at })
}

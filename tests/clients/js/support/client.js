// People with keys, and what the suites do with nostr-tools' Relay again and again.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

import { Relay, finalizeEvent, generateSecretKey, getPublicKey } from './tools.js'
import { Inbox, WAIT_MS, within } from './wait.js'

/** Now, as NIP-01 counts. */
export function nowSecs() {
  return Math.floor(Date.now() / 1000)
}

/** Someone with a key pair of their own. */
export class Person {
  secret = generateSecretKey()
  key = getPublicKey(this.secret)

  sign(kind, { content = '', tags = [], at = nowSecs() } = {}) {
    return finalizeEvent({ kind, content, tags, created_at: at }, this.secret)
  }

  /** A kind 443 in the specification's shape; the content is filler, which a relay that only logs takes. */
  keyPackage({ endsAt = nowSecs() + 86_400, reference = randomBytes(32).toString('hex') } = {}) {
    const tags = [
      ['p', this.key],
      ['cs', 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'],
      ['kpr', reference],
      ['exp', `${endsAt}`],
    ]
    return this.sign(443, { content: randomBytes(200).toString('base64'), tags })
  }

  /** Signs what nostr-tools hands out, an AUTH event for one. */
  signer = async template => finalizeEvent(template, this.secret)
}

/** A connection that has authenticated nobody. */
export async function connect(url) {
  const relay = configured(url)
  await within(relay.connect(), 'a connection')
  return relay
}

/** A connection that has authenticated `person`. */
export async function connectAs(url, person) {
  const relay = configured(url)
  const challenged = new Promise(resolve => {
    relay.onauth = template => {
      resolve()
      return person.signer(template)
    }
  })
  await within(relay.connect(), 'a connection')
  await within(challenged, 'a challenge')
  await within(relay.auth(person.signer), 'the OK to AUTH')
  return relay
}

/** nostr-tools takes silence for EOSE after a while; here silence is a failure, so that comes later. */
const LIBRARY_WAIT_MS = WAIT_MS + 1_000

function configured(url) {
  const relay = new Relay(url)
  relay.baseEoseTimeout = LIBRARY_WAIT_MS
  relay.publishTimeout = LIBRARY_WAIT_MS
  return relay
}

/** What is stored for these filters, in the order in which it came. Rejects with the reason of a CLOSED. */
export async function stored(relay, ...filters) {
  const events = []
  const end = new Promise((resolve, reject) => {
    const subscription = relay.subscribe(filters, {
      onevent: event => events.push(event),
      oneose: () => {
        subscription.onclose = undefined
        subscription.close()
        resolve()
      },
      onclose: reason => {
        clearTimeout(subscription.eoseTimeoutHandle)
        reject(new Error(reason))
      },
    })
  })
  await within(end, 'EOSE or CLOSED')
  return events
}

/** A subscription that stays open: what was stored, and an inbox of what comes after. */
export async function subscribed(relay, ...filters) {
  const archive = []
  const live = new Inbox()
  const closed = new Inbox()
  let open = false
  let subscription
  const opened = new Promise((resolve, reject) => {
    subscription = relay.subscribe(filters, {
      onevent: event => (open ? live.push(event) : archive.push(event)),
      oneose: () => {
        open = true
        resolve()
      },
      onclose: reason => {
        clearTimeout(subscription.eoseTimeoutHandle)
        closed.push(reason)
        reject(new Error(reason))
      },
    })
  })
  await within(opened, 'EOSE')
  return { archive, live, closed, close: () => subscription.close() }
}

/** Resolves to the reason of the `OK true`. */
export function publish(relay, event) {
  return within(relay.publish(event), 'OK')
}

/** Resolves to the count. Rejects with the reason of a CLOSED. */
export function count(relay, ...filters) {
  return within(relay.count(filters, {}), 'COUNT')
}

/** Expects an `OK false` or a `CLOSED` with this reason. */
export function refused(promise, reason) {
  return assert.rejects(promise, error => {
    assert.match(error.message, reason)
    return true
  })
}

/** The ids, in their order. */
export function ids(events) {
  return events.map(event => event.id)
}

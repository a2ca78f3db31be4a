// Persons with keys, and the suites' common requests by nostr-tools' Relay.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

import { Relay, finalizeEvent, generateSecretKey, getPublicKey } from './tools.js'
import { Inbox, WAIT_MS, within } from './wait.js'

/** The time, in Unix seconds. */
export function nowSecs() {
  return Math.floor(Date.now() / 1000)
}

/** A person with a new key pair. */
export class Person {
  secret = generateSecretKey()
  key = getPublicKey(this.secret)

  sign(kind, { content = '', tags = [], at = nowSecs() } = {}) {
    return finalizeEvent({ kind, content, tags, created_at: at }, this.secret)
  }

  /** Makes a 443 in the specification's form. Its content is random, which a relay takes if it only logs the check. */
  keyPackage({ endsAt = nowSecs() + 86_400, reference = randomBytes(32).toString('hex') } = {}) {
    const tags = [
      ['p', this.key],
      ['cs', 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'],
      ['kpr', reference],
      ['exp', `${endsAt}`],
    ]
    return this.sign(443, { content: randomBytes(200).toString('base64'), tags })
  }

  /** Signs the templates of nostr-tools, such as AUTH events. */
  signer = async template => finalizeEvent(template, this.secret)
}

/** Opens a connection without a key. */
export async function connect(url) {
  const relay = configured(url)
  await within(relay.connect(), 'a connection')
  return relay
}

/** Opens a connection and authenticates `person` on it. */
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

/** Time after which nostr-tools takes silence for EOSE. It is longer than WAIT_MS, because silence must fail a test. */
const LIBRARY_WAIT_MS = WAIT_MS + 1_000

function configured(url) {
  const relay = new Relay(url)
  relay.baseEoseTimeout = LIBRARY_WAIT_MS
  relay.publishTimeout = LIBRARY_WAIT_MS
  return relay
}

/** Fetches the stored events for these filters, in the order received. Rejects with the reason of a CLOSED. */
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

/** Opens a subscription: `archive` holds the stored events, `live` is an inbox of later ones. */
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

/** Publishes an event. Resolves to the reason of the `OK true`. */
export function publish(relay, event) {
  return within(relay.publish(event), 'OK')
}

/** Sends a COUNT. Resolves to the count, and rejects with the reason of a CLOSED. */
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

/** The ids of events, in their order. */
export function ids(events) {
  return events.map(event => event.id)
}

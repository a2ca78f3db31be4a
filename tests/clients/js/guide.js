// A client of nostr-tools and ts-mls. docs/clients.md shows each function, and guide.test.js runs them.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { getToken } from 'nostr-tools/nip98'
import { createRumor, createSeal, unwrapEvent } from 'nostr-tools/nip59'
import { encrypt, getConversationKey } from 'nostr-tools/nip44'
import { bytesToHex, hexToBytes } from 'nostr-tools/utils'
import * as mls from 'ts-mls'
import { makeKeyPackageRef } from 'ts-mls/keyPackage.js'

import { Relay, finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from './support/tools.js'

const SUITE = 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'
const suite = await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName(SUITE))
const toBase64 = message => Buffer.from(mls.encodeMlsMessage({ version: 'mls10', ...message })).toString('base64')
const fromBase64 = text => mls.decodeMlsMessage(Buffer.from(text, 'base64'), 0)[0]
const sign = (secret, kind, tags, content = '') =>
  finalizeEvent({ kind, tags, content, created_at: Math.floor(Date.now() / 1000) }, secret)

const CHALLENGE_LOOK_MS = 10

/** Connects, and resolves when the relay has accepted the key. */
export async function connect(url, secret) {
  const signer = async template => finalizeEvent(template, secret)
  const relay = new Relay(url, { enableReconnect: true })
  await relay.connect()
  while (!relay.challenge) await sleep(CHALLENGE_LOOK_MS) // The relay's first message.
  await relay.auth(signer).catch(error => {
    relay.close() // Else nostr-tools would connect again and again.
    throw error // It has the relay's reason.
  })
  relay.onauth = signer // Answers the challenge of each later connection.
  return relay
}

const TRIES_MAX = 5

/** Publishes an event, and does what the relay asks for. Rejects with a reason that trying again cannot help. */
export async function publish(relay, event, secret) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await relay.publish(event) // '' for a new event, `duplicate: …` for one that is stored already.
    } catch (error) {
      const [word] = error.message.split(':')
      const again = ['rate-limited', 'error', 'auth-required'].includes(word)
      if (!again || tries === TRIES_MAX) throw error
      if (word === 'auth-required') await relay.auth(async template => finalizeEvent(template, secret))
      else await sleep(1_000 * Number(/retry in (\d+) s/.exec(error.message)?.[1] ?? tries))
    }
  }
}

const LIFETIME_SECS = 28 * 86_400

/** Publishes a KeyPackage. Keep the result: a Welcome that uses this KeyPackage is opened by it. */
export async function publishKeyPackage(relay, secret) {
  const [key, now] = [getPublicKey(secret), Math.floor(Date.now() / 1000)]
  const credential = { credentialType: 'basic', identity: hexToBytes(key) }
  const lifetime = { notBefore: BigInt(now - 3_600), notAfter: BigInt(now + LIFETIME_SECS) }
  const made = await mls.generateKeyPackage(credential, mls.defaultCapabilities(), lifetime, [], suite)
  const reference = bytesToHex(await makeKeyPackageRef(made.publicPackage, suite.hash))
  const content = toBase64({ keyPackage: made.publicPackage, wireformat: 'mls_key_package' })
  await publish(relay, sign(secret, 443, [['cs', SUITE], ['kpr', reference], ['encoding', 'base64']], content), secret)
  return { reference, ...made }
}

/** Makes a request of the relay's REST API, with a proof by NIP-98. */
export async function rest(relay, secret, method, path, body) {
  const url = `${relay.url.replace(/^ws/, 'http').replace(/\/$/, '')}/api/v1/mls/${path}`
  const proof = await getToken(url, method, template => finalizeEvent(template, secret), true, body)
  const headers = { authorization: proof, ...(body && { 'content-type': 'application/json' }) }
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) })
  const json = await answer.json()
  if (!answer.ok) throw Object.assign(new Error(json.detail), { status: answer.status })
  return json
}

/** Claims a KeyPackage of `owner`, which nobody else gets. */
export async function claim(relay, secret, owner) {
  const { keypackages } = await rest(relay, secret, 'POST', 'keypackages/claim', { owner, ciphersuite: SUITE })
  const { event } = keypackages[0]
  const { keyPackage } = fromBase64(event.content)
  const identity = bytesToHex(keyPackage.leafNode.credential.identity)
  if (event.pubkey !== owner || identity !== owner || !verifyEvent(event)) throw new Error('not of this owner')
  return keyPackage
}

/** Founds a group of the author and one other person, by the gift wrap with the Welcome. */
export async function foundGroup(relay, secret, own, invited) {
  const group = `team-${randomUUID()}`
  const alone = await mls.createGroup(Buffer.from(group), own.publicPackage, own.privatePackage, [], suite)
  const add = { proposalType: 'add', add: { keyPackage: await claim(relay, secret, invited) } }
  const options = { extraProposals: [add], ratchetTreeExtension: true }
  const { welcome, newState } = await mls.createCommit({ state: alone, cipherSuite: suite }, options)
  const content = toBase64({ welcome, wireformat: 'mls_welcome' })
  await publish(relay, giftWrap(secret, invited, group, { kind: 444, content, tags: [['h', group]] }), secret)
  return { group, state: newState }
}

/** Wraps a rumor by NIP-59. The `h` on the wrap has the relay add the recipient to the group. */
function giftWrap(secret, recipient, group, rumor) {
  const seal = createSeal(createRumor(rumor, secret), secret, recipient)
  const once = generateSecretKey()
  const content = encrypt(JSON.stringify(seal), getConversationKey(once, recipient))
  return sign(once, 1059, [['p', recipient], ['h', group]], content)
}

/** Joins a group by the first Welcome in the inbox that is for `own`. */
export async function join(relay, secret, own) {
  const { events } = await rest(relay, secret, 'GET', 'inbox')
  for (const wrap of events.filter(({ kind }) => kind === 1059)) {
    const rumor = unwrapEvent(wrap, secret)
    if (rumor.kind !== 444) continue
    const { welcome } = fromBase64(rumor.content)
    if (!welcome.secrets.some(({ newMember }) => bytesToHex(newMember) === own.reference)) continue
    const state = await mls.joinGroup(welcome, own.publicPackage, own.privatePackage, mls.emptyPskIndex, suite)
    return { group: Object.fromEntries(rumor.tags).h, state }
  }
  throw new Error('there is no Welcome in the inbox')
}

/** Sends a message to a group, signed by a key that is used once. */
export async function send(relay, secret, member, text) {
  const made = await mls.createApplicationMessage(member.state, Buffer.from(text), suite)
  const content = toBase64({ privateMessage: made.privateMessage, wireformat: 'mls_private_message' })
  member.state = made.newState
  const event = sign(generateSecretKey(), 445, [['h', member.group]], content)
  await publish(relay, event, secret)
  return event.id
}

/** Gives the text of a message, and goes on with the group's state; undefined for a commit. */
export async function read(member, event) {
  const { privateMessage } = fromBase64(event.content)
  const result = await mls.processPrivateMessage(member.state, privateMessage, mls.emptyPskIndex, suite)
  member.state = result.newState
  return result.kind === 'applicationMessage' ? Buffer.from(result.message).toString() : undefined
}

/** Calls `onevent` for each message that comes from now on. */
export function follow(relay, group, onevent) {
  return new Promise((resolve, reject) => {
    const settings = { onevent, oneose: () => resolve(live), onclose: reason => reject(new Error(reason)) }
    const live = relay.subscribe([{ kinds: [445], '#h': [group], limit: 0 }], settings)
  })
}

/** Gives the messages behind `cursor` in the order in which the relay received them, and the cursor to go on from. */
export async function catchUpByRest(relay, secret, group, cursor) {
  const events = []
  for (;;) {
    const since = cursor === undefined ? '' : `&since_cursor=${encodeURIComponent(cursor)}`
    const page = await rest(relay, secret, 'GET', `messages?group=${encodeURIComponent(group)}${since}`)
    events.push(...page.events)
    cursor = page.next_cursor
    if (!page.has_more) return { events, cursor }
  }
}

/** Gives the messages since a time that `known` does not have, the earliest `created_at` first. */
export async function catchUpByRequest(relay, group, since, known) {
  const found = new Map()
  for (let until; ;) {
    const filter = { kinds: [445], '#h': [group], since, ...(until && { until }) }
    const page = await request(relay, filter)
    const fresh = page.filter(({ id }) => !found.has(id))
    for (const event of fresh) found.set(event.id, event)
    if (fresh.length === 0) break
    until = Math.min(...fresh.map(event => event.created_at))
  }
  const missed = [...found.values()].filter(({ id }) => !known.has(id))
  return missed.sort((a, b) => a.created_at - b.created_at || (a.id < b.id ? -1 : 1))
}

/** Gives the stored events that match, or rejects with the reason of a CLOSED. */
export function request(relay, filter) {
  return new Promise((resolve, reject) => {
    const events = []
    const subscription = relay.subscribe([filter], {
      onevent: event => events.push(event),
      onclose: reason => reject(new Error(reason)),
      oneose: () => {
        resolve(events)
        subscription.close()
      },
    })
  })
}

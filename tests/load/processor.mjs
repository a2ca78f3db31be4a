// The steps of websocket-test.yml. Each step throws if the relay answers otherwise than it should, which ends its
// client as failed.

import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'

import { Person } from '../clients/js/support/client.js'
import { nip42 } from '../clients/js/support/tools.js'

/** Longest wait for a frame, in milliseconds. */
const FRAME_MS_MAX = 10_000

/** The frames of one client's connection. */
class Frames {
  #waiting = []
  #unread = []

  constructor(socket) {
    socket.on('message', data => {
      const frame = JSON.parse(data)
      const at = this.#waiting.findIndex(({ fits }) => fits(frame))
      if (at < 0) this.#unread.push(frame)
      else this.#waiting.splice(at, 1)[0].found(frame)
    })
  }

  /** The first frame that fits, of those that came and of those that come; others wait for their step. */
  next(what, fits) {
    const at = this.#unread.findIndex(fits)
    if (at >= 0) return Promise.resolve(this.#unread.splice(at, 1)[0])
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${what}`)), FRAME_MS_MAX)
      this.#waiting.push({
        fits,
        found(frame) {
          clearTimeout(timer)
          resolve(frame)
        },
      })
    })
  }
}

/** Takes the connection over, before the relay's first frame comes. */
export async function begin({ ws, vars }) {
  vars.person = new Person()
  vars.frames = new Frames(ws)
  vars.notes = 0
}

export async function authenticate({ ws, vars }, events) {
  const { person, frames } = vars
  const [, challenge] = await frames.next('challenge', ([verb]) => verb === 'AUTH')
  const { kind, tags } = nip42.makeAuthEvent(ws.url, challenge)
  await submit(ws, vars, events, 'AUTH', person.sign(kind, { tags }))
}

export async function publishKeyPackage({ ws, vars }, events) {
  vars.keyPackage = vars.person.keyPackage()
  await submit(ws, vars, events, 'EVENT', vars.keyPackage)
}

export async function readKeyPackage({ ws, vars }) {
  const found = await stored(ws, vars, { kinds: [443], authors: [vars.person.key] })
  if (found.length !== 1 || found[0].id !== vars.keyPackage.id) throw new Error('another KeyPackage than the published')
}

export async function publishNote({ ws, vars }, events) {
  vars.notes += 1
  await submit(ws, vars, events, 'EVENT', vars.person.sign(1, { content: `note ${vars.notes}` }))
}

export async function countNotes({ ws, vars }) {
  ws.send(JSON.stringify(['COUNT', 'count', { kinds: [1], authors: [vars.person.key] }]))
  const [, , { count }] = await vars.frames.next('COUNT', ([verb, id]) => verb === 'COUNT' && id === 'count')
  if (count !== vars.notes) throw new Error(`${count} notes, not ${vars.notes}`)
}

/** Sends a Noise message (446) to the client itself, which its subscription hears. */
export async function sendNoiseMessage({ ws, vars }, events) {
  const { key } = vars.person
  await stored(ws, vars, { kinds: [446], '#p': [key] }, 'noise')
  const tags = [['p', key], ['v', 'noise.1']]
  const message = vars.person.sign(446, { tags, content: randomBytes(300).toString('base64') })
  await heard(ws, vars, events, 'noise', message)
}

/** Subscribes to a new unlisted group, which each client that knows its id reads and writes. */
export async function joinGroup({ ws, vars }) {
  vars.group = randomBytes(32).toString('hex')
  await stored(ws, vars, { kinds: [445], '#h': [vars.group] }, 'group')
}

/** Sends a group message (445) by a throw-away key, as MLS clients do, and hears it. */
export async function sendGroupMessage({ ws, vars }, events) {
  const content = randomBytes(600).toString('base64')
  await heard(ws, vars, events, 'group', new Person().sign(445, { tags: [['h', vars.group]], content }))
}

/** Reads the answer to the REQ that the scenario sends itself. */
export async function readNotes({ vars }) {
  const found = await untilEose(vars.frames, 'notes')
  if (found.some(({ kind }) => kind !== 1)) throw new Error('an event of another kind')
}

/** Publishes an event and waits for its OK and for the subscription that hears it. */
async function heard(ws, vars, events, subscription, event) {
  const sent = performance.now()
  const arrives = vars.frames.next('live event', ([verb, id, it]) =>
    verb === 'EVENT' && id === subscription && it.id === event.id)
  await Promise.all([submit(ws, vars, events, 'EVENT', event), arrives])
  events.emit('histogram', 'nostr.event_to_subscriber', performance.now() - sent)
}

/** Sends an event and waits for its OK. */
async function submit(ws, { frames }, events, verb, event) {
  const sent = performance.now()
  ws.send(JSON.stringify([verb, event]))
  const [, , accepted, reason] = await frames.next(`OK to ${verb}`, ([verb, id]) => verb === 'OK' && id === event.id)
  if (!accepted) throw new Error(`${verb} of kind ${event.kind}: ${reason.split(/[:;]/, 1)[0]}`)
  events.emit('counter', 'nostr.events', 1)
  events.emit('histogram', 'nostr.event_to_ok', performance.now() - sent)
}

/** The stored events of a filter. The subscription stays open if it has a name. */
async function stored(ws, { frames }, filter, name) {
  const id = name ?? 'stored'
  ws.send(JSON.stringify(['REQ', id, filter]))
  const found = await untilEose(frames, id)
  if (!name) ws.send(JSON.stringify(['CLOSE', id]))
  return found
}

/** The events of a subscription that came before its EOSE. */
async function untilEose(frames, id) {
  const found = []
  for (;;) {
    const [verb, , body] = await frames.next('EOSE', ([, subscription]) => subscription === id)
    if (verb === 'CLOSED') throw new Error(`REQ: ${body.split(/[:;]/, 1)[0]}`)
    if (verb === 'EOSE') return found
    found.push(body)
  }
}

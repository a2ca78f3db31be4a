// The client of docs/clients.md: two people talk in a group, and one of them was away.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import * as guide from './guide.js'
import { Person, nowSecs } from './support/client.js'
import { startRelay } from './support/server.js'
import { Relay } from './support/tools.js'
import { Inbox } from './support/wait.js'

/** Events that an address sends at once before the relay refuses one (docs/rules.md, "Rate limits" 1). */
const EVENTS_AT_ONCE = 200
/** The shortest wait of the client before it tries again. */
const FIRST_WAIT_MS = 1_000

const [alice, bob, eve] = [new Person(), new Person(), new Person()]
const connections = []
let server, ofAlice, ofBob, atAlice, atBob, inAlice, inBob

before(async () => {
  server = await startRelay({ verify: 'enforce' })
  ;[atAlice, atBob] = [await connect(alice), await connect(bob)]
})
after(async () => {
  // A connection that is open would keep the process alive, also where its test has failed.
  for (const relay of connections) relay.close()
  await server?.stop()
})

async function connect(person, { url } = server) {
  const relay = await guide.connect(url, person.secret)
  connections.push(relay)
  return relay
}

test('both publish a KeyPackage, and one founds a group with the other', async () => {
  ofAlice = await guide.publishKeyPackage(atAlice, alice.secret)
  ofBob = await guide.publishKeyPackage(atBob, bob.secret)
  inAlice = await guide.foundGroup(atAlice, alice.secret, ofAlice, bob.key)
  inBob = await guide.join(atBob, bob.secret, ofBob)
  assert.equal(inBob.group, inAlice.group)
})

test('a message comes live', async () => {
  const heard = new Inbox()
  await guide.follow(atBob, inBob.group, event => heard.push(event))
  const id = await guide.send(atAlice, alice.secret, inAlice, 'good morning')
  const event = await heard.next('the message')
  assert.equal(event.id, id)
  assert.equal(await guide.read(inBob, event), 'good morning')
})

test('both ways of catching up give what came meanwhile, and nothing twice', async () => {
  const since = nowSecs()
  const { cursor, events } = await guide.catchUpByRest(atBob, bob.secret, inBob.group)
  const known = new Set(events.map(({ id }) => id))
  assert.equal(known.size, 1)
  atBob.close()
  const ids = []
  for (const text of ['one', 'two']) ids.push(await guide.send(atAlice, alice.secret, inAlice, text))
  atBob = await connect(bob)
  const missed = await guide.catchUpByRest(atBob, bob.secret, inBob.group, cursor)
  assert.deepEqual(missed.events.map(({ id }) => id), ids)
  const requested = await guide.catchUpByRequest(atBob, inBob.group, since - 60, known)
  assert.deepEqual(requested.map(({ id }) => id).sort(), [...ids].sort())
  for (const [at, event] of missed.events.entries()) assert.equal(await guide.read(inBob, event), ['one', 'two'][at])
  assert.deepEqual((await guide.catchUpByRest(atBob, bob.secret, inBob.group, missed.cursor)).events, [])
})

test('a reason that trying again cannot help is told at once', async () => {
  const relay = await connect(eve)
  const message = eve.sign(445, { content: 'AAEAAg==', tags: [['h', inAlice.group]] })
  const started = Date.now()
  await assert.rejects(guide.publish(relay, message, eve.secret), /^Error: restricted: /)
  assert.ok(Date.now() - started < FIRST_WAIT_MS, 'it waits before it tells')
  assert.deepEqual(await guide.request(relay, { kinds: [445], '#h': [inAlice.group] }), [])
  await assert.rejects(guide.claim(relay, eve.secret, eve.key), { status: 404 })
  relay.close()
})

test('a key that the relay does not take is told the reason', async () => {
  const closed = await startRelay({ auth: true, residents: [alice.key] })
  try {
    await assert.rejects(guide.connect(closed.url, eve.secret), /^Error: restricted: /)
    const relay = await connect(alice, closed)
    assert.deepEqual(await guide.request(relay, { kinds: [1] }), [])
    relay.close()
  } finally {
    await closed.stop()
  }
})

test('auth-required: is answered by AUTH', async () => {
  const relay = await Relay.connect(server.url)
  connections.push(relay)
  const own = eve.sign(1, { content: 'mine', tags: [['-']] })
  await assert.rejects(relay.publish(own), /auth-required: /)
  assert.equal(await guide.publish(relay, own, eve.secret), '')
  relay.close()
})

// The last test, since it leaves the address nothing to spend.
test('rate-limited: is waited out', async () => {
  const relay = await connect(eve)
  for (let n = 0; n <= EVENTS_AT_ONCE; n += 1) await guide.publish(relay, eve.sign(1, { content: `${n}` }), eve.secret)
  relay.close()
})

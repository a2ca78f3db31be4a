// NIP-42 with nostr-tools, on a relay that answers nothing before AUTH and on one that asks for AUTH when a kind needs
// it.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { Person, connect, connectAs, count, ids, publish, refused, stored, subscribed } from './support/client.js'
import { startRelay } from './support/server.js'
import { SimplePool, nip42 } from './support/tools.js'
import { within } from './support/wait.js'

/** Kinds that only recipients or members may read. */
const HIDDEN_KINDS = [4, 445, 446, 447, 450, 1059, 21059]

describe('with auth.enabled', () => {
  const [resident, other, stranger] = [new Person(), new Person(), new Person()]
  let server

  before(async () => {
    server = await startRelay({ auth: true, residents: [resident.key, other.key] })
  })
  after(() => server?.stop())

  test('nothing is answered before AUTH', async () => {
    const relay = await connect(server.url)
    const note = resident.sign(1)
    await refused(publish(relay, note), /^auth-required: /)
    await refused(stored(relay, { kinds: [1] }), /^auth-required: /)
    await refused(stored(relay, { ids: [note.id] }), /^auth-required: /)
    await refused(count(relay, { kinds: [1] }), /^auth-required: /)
    await within(relay.auth(resident.signer), 'the OK to AUTH')
    assert.equal(await publish(relay, note), '')
    assert.deepEqual(ids(await stored(relay, { ids: [note.id] })), [note.id])
    relay.close()
  })

  test('a key that is no resident cannot AUTH', async () => {
    const relay = await connect(server.url)
    await challengeOf(relay)
    await refused(within(relay.auth(stranger.signer), 'the OK to AUTH'), /^restricted: /)
    await refused(stored(relay, { kinds: [1] }), /^auth-required: /)
    relay.close()
  })

  test('a KeyPackage and a deletion need their author on the connection', async () => {
    const relay = await connectAs(server.url, resident)
    await refused(publish(relay, other.keyPackage()), /^(auth-required|restricted): /)
    await refused(publish(relay, other.sign(5, { tags: [['e', resident.key]] })), /^(auth-required|restricted): /)
    assert.equal(await publish(relay, resident.keyPackage()), '')
    relay.close()
  })

  test('an AUTH for another challenge, another relay or another time proves nothing', async () => {
    const relay = await connect(server.url)
    const challenge = await challengeOf(relay)
    const earlier = await challengeOf(await connect(server.url))
    const wrong = [
      nip42.makeAuthEvent(server.url, earlier),
      nip42.makeAuthEvent('wss://relay.example', challenge),
      { ...nip42.makeAuthEvent(server.url, challenge), created_at: Math.floor(Date.now() / 1000) - 3_600 },
      { ...nip42.makeAuthEvent(server.url, challenge), kind: 1 },
    ]
    for (const template of wrong) {
      relay.authPromise = undefined
      await refused(
        within(relay.auth(async () => resident.signer(template)), 'the OK to AUTH'),
        /^(invalid|restricted|auth-required|error): /,
      )
    }
    await refused(stored(relay, { kinds: [1] }), /^auth-required: /)
    relay.close()
  })

  test('SimplePool authenticates when it is asked to, and goes on', async () => {
    const pool = new SimplePool()
    try {
      const note = resident.sign(1, { content: 'after AUTH' })
      await within(Promise.all(pool.publish([server.url], note, { onauth: resident.signer })), 'OK')
      const second = new SimplePool()
      try {
        const found = new Promise(resolve => {
          second.subscribe([server.url], { ids: [note.id] }, { onevent: resolve, onauth: other.signer })
        })
        assert.equal((await within(found, 'the note')).content, 'after AUTH')
      } finally {
        second.destroy()
      }
    } finally {
      pool.destroy()
    }
  })
})

describe('without auth.enabled', () => {
  let server

  before(async () => {
    server = await startRelay()
  })
  after(() => server?.stop())

  test('public kinds need no AUTH, kinds for recipients or members do', async () => {
    const relay = await connect(server.url)
    assert.deepEqual(await stored(relay, { kinds: [1, 443] }), [])
    for (const kind of HIDDEN_KINDS) {
      await refused(stored(relay, { kinds: [1, kind] }), /^auth-required: /)
      await refused(count(relay, { kinds: [kind] }), /^auth-required: /)
    }
    relay.close()
  })

  test('a connection with two keys reads the messages to both', async () => {
    const [alice, bob, carol] = [new Person(), new Person(), new Person()]
    const sender = await connectAs(server.url, carol)
    const dms = [alice, bob].map(person => carol.sign(4, { content: '…?iv=…', tags: [['p', person.key]] }))
    for (const dm of dms) await publish(sender, dm)
    const relay = await connectAs(server.url, alice)
    assert.deepEqual(ids(await stored(relay, { kinds: [4] })), [dms[0].id])
    const listening = await subscribed(relay, { kinds: [4] })
    relay.authPromise = undefined
    await within(relay.auth(bob.signer), 'the OK to the second AUTH')
    assert.deepEqual(ids(await stored(relay, { kinds: [4] })).sort(), ids(dms).sort())
    const late = carol.sign(4, { content: 'late?iv=…', tags: [['p', bob.key]] })
    await publish(sender, late)
    assert.equal((await listening.live.next('the late message, on a subscription from before')).id, late.id)
    relay.close()
    sender.close()
  })

  test('an AUTH event is neither stored nor passed on', async () => {
    const alice = new Person()
    const relay = await connectAs(server.url, alice)
    assert.deepEqual(await stored(relay, { kinds: [22242] }), [])
    const event = await alice.signer(nip42.makeAuthEvent(server.url, relay.challenge))
    await refused(publish(relay, event), /^(blocked|invalid|restricted): /)
    assert.deepEqual(await stored(relay, { ids: [event.id] }), [])
    relay.close()
  })
})

/** The connection's challenge. The relay sends it before its first answer, so a COUNT is answered after it. */
async function challengeOf(relay) {
  await count(relay, { kinds: [1] }).catch(() => {})
  assert.match(relay.challenge, /^.{16,}$/)
  return relay.challenge
}

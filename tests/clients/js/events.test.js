// NIP-01 and NIP-45 with nostr-tools: publish, subscribe, replace, count.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { Person, connect, count, ids, nowSecs, publish, refused, stored, subscribed } from './support/client.js'
import { startRelay } from './support/server.js'
import { SimplePool } from './support/tools.js'
import { within } from './support/wait.js'

let server
let relay

before(async () => {
  server = await startRelay()
  relay = await connect(server.url)
})
after(async () => {
  relay?.close()
  await server?.stop()
})

test('a note is stored, and comes back as it was signed', async () => {
  const alice = new Person()
  const note = alice.sign(1, { content: 'tide "at" six\n\u{1F30A}', tags: [['t', 'sea'], ['p', alice.key]] })
  assert.equal(await publish(relay, note), '')
  const [found] = await stored(relay, { ids: [note.id] })
  assert.deepEqual(JSON.parse(JSON.stringify(found)), JSON.parse(JSON.stringify(note)))
  assert.deepEqual(ids(await stored(relay, { authors: [alice.key], '#t': ['sea'] })), [note.id])
  assert.deepEqual(await stored(relay, { authors: [alice.key], '#t': ['land'] }), [])
})

test('stored events come newest first and then by id, and limit cuts the oldest', async () => {
  const alice = new Person()
  const start = nowSecs() - 100
  const notes = [0, 1, 1, 2].map((offset, n) => alice.sign(1, { content: `${n}`, at: start + offset }))
  for (const note of notes) await publish(relay, note)
  const expected = [...notes].sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1))
  assert.deepEqual(ids(await stored(relay, { authors: [alice.key] })), ids(expected))
  assert.deepEqual(ids(await stored(relay, { authors: [alice.key], limit: 3 })), ids(expected.slice(0, 3)))
  const middle = await stored(relay, { authors: [alice.key], since: start + 1, until: start + 1 })
  assert.deepEqual(ids(middle), ids(expected.slice(1, 3)))
})

test('a subscription gets each matching event of another connection once, and no other event', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const early = alice.sign(1, { content: 'early' })
  await publish(relay, early)
  const listener = await connect(server.url)
  const listening =
    await subscribed(listener, { authors: [alice.key], kinds: [1] }, { authors: [alice.key], '#t': ['x'] })
  assert.deepEqual(ids(listening.archive), [early.id])
  await publish(relay, bob.sign(1, { content: 'not asked for' }))
  await publish(relay, alice.sign(7, { content: '+' }))
  const first = alice.sign(1, { content: 'first', tags: [['t', 'x']] })
  const second = alice.sign(1, { content: 'second' })
  await publish(relay, first)
  await publish(relay, second)
  assert.equal((await listening.live.next('the first note')).id, first.id)
  assert.equal((await listening.live.next('the second note')).id, second.id)
  listener.close()
})

test('a closed subscription is silent', async () => {
  const alice = new Person()
  const listener = await connect(server.url)
  const [shut, open] = [
    await subscribed(listener, { authors: [alice.key] }),
    await subscribed(listener, { authors: [alice.key] }),
  ]
  shut.close()
  // An answer to a later request shows that the relay has read the CLOSE.
  await stored(listener, { ids: [alice.key] })
  const frames = []
  listener.ws.addEventListener('message', message => frames.push(JSON.parse(message.data)))
  const note = alice.sign(1)
  await publish(relay, note)
  assert.equal((await open.live.next('the note')).id, note.id)
  assert.equal(frames.filter(frame => frame[0] === 'EVENT').length, 1)
  listener.close()
})

test('the newest event of a replaceable kind stays, and at the same time the one with the lower id', async () => {
  const alice = new Person()
  const at = nowSecs() - 50
  const [old, other] = [alice.sign(0, { content: '{"name":"a"}', at }), alice.sign(0, { content: '{"name":"b"}', at })]
  const newest = alice.sign(0, { content: '{"name":"c"}', at: at + 1 })
  const [lower, higher] = old.id < other.id ? [old, other] : [other, old]
  await publish(relay, higher)
  await publish(relay, lower)
  assert.deepEqual(ids(await stored(relay, { kinds: [0], authors: [alice.key] })), [lower.id])
  await publish(relay, newest)
  assert.deepEqual(ids(await stored(relay, { kinds: [0], authors: [alice.key] })), [newest.id])
  await publish(relay, lower).catch(error => assert.match(error.message, /^(duplicate|invalid):/))
  assert.deepEqual(ids(await stored(relay, { kinds: [0], authors: [alice.key] })), [newest.id])
})

test('an addressable kind is replaced within its d alone', async () => {
  const alice = new Person()
  const at = nowSecs() - 50
  const of = (d, content, offset) => alice.sign(30023, { content, tags: [['d', d]], at: at + offset })
  const [draft, final, other] = [of('one', 'draft', 0), of('one', 'final', 1), of('two', 'other', 2)]
  for (const event of [draft, final, other]) await publish(relay, event)
  assert.deepEqual(ids(await stored(relay, { kinds: [30023], authors: [alice.key] })), ids([other, final]))
  assert.deepEqual(ids(await stored(relay, { kinds: [30023], authors: [alice.key], '#d': ['one'] })), [final.id])
})

test('an ephemeral event is passed on and not kept', async () => {
  const alice = new Person()
  const listener = await connect(server.url)
  const listening = await subscribed(listener, { kinds: [20001], authors: [alice.key] })
  const event = alice.sign(20001, { content: 'now' })
  await publish(relay, event)
  assert.equal((await listening.live.next('the ephemeral event')).id, event.id)
  assert.deepEqual(await stored(relay, { ids: [event.id] }), [])
  listener.close()
})

test('COUNT counts the events that REQ would send', async () => {
  const alice = new Person()
  for (const n of [1, 2, 3])
    await publish(relay, alice.sign(1, { content: `${n}`, tags: [['t', n > 1 ? 'big' : 'small']] }))
  assert.equal(await count(relay, { authors: [alice.key] }), 3)
  assert.equal(await count(relay, { authors: [alice.key], '#t': ['big'] }), 2)
  assert.equal(
    await count(relay, { '#t': ['big'], authors: [alice.key] }, { '#t': ['small'], authors: [alice.key] }),
    3,
  )
  assert.equal(await count(relay, { authors: [new Person().key] }), 0)
})

test('an event that was sent before gets OK true and duplicate:', async () => {
  const note = new Person().sign(1)
  await publish(relay, note)
  assert.match(await publish(relay, note), /^duplicate:/)
})

test('a forged event, one of the future and one of a blocked kind are refused with a reason', async () => {
  const alice = new Person()
  const note = alice.sign(1)
  await refused(publish(relay, { ...note, sig: alice.sign(1, { content: 'other' }).sig }), /^invalid: /)
  await refused(publish(relay, { ...note, content: 'forged' }), /^invalid: /)
  await refused(publish(relay, alice.sign(1, { at: nowSecs() + 3_600 })), /^invalid: created_at /)
  await refused(publish(relay, alice.sign(444)), /^blocked: /)
  assert.deepEqual(await stored(relay, { authors: [alice.key] }), [])
})

test('an expired event is refused, and one that expires later is served', async () => {
  const alice = new Person()
  const at = end => alice.sign(1, { content: `${end}`, tags: [['expiration', `${end}`]] })
  await refused(publish(relay, at(nowSecs() - 1)), /^invalid: /)
  const note = at(nowSecs() + 600)
  await publish(relay, note)
  assert.deepEqual(ids(await stored(relay, { authors: [alice.key] })), [note.id])
})

test('SimplePool publishes, finds and follows', async () => {
  const alice = new Person()
  const pool = new SimplePool()
  try {
    const followed = new Promise(resolve => {
      pool.subscribe([server.url], { authors: [alice.key], kinds: [1] }, { onevent: resolve })
    })
    const note = alice.sign(1, { content: 'by the pool' })
    await within(Promise.all(pool.publish([server.url], note)), 'OK')
    assert.equal((await within(followed, 'the note, live')).id, note.id)
    assert.equal((await within(pool.get([server.url], { ids: [note.id] }), 'the note')).content, 'by the pool')
    assert.equal((await within(pool.querySync([server.url], { authors: [alice.key] }), 'the notes')).length, 1)
  } finally {
    pool.destroy()
  }
})

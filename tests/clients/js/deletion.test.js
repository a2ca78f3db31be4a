// NIP-09 with nostr-tools.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { Person, connect, count, ids, nowSecs, publish, refused, stored, subscribed } from './support/client.js'
import { startRelay } from './support/server.js'

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

test('the author deletes a note by its id: gone from every answer, and gone for good', async () => {
  const alice = new Person()
  const [gone, kept] = [alice.sign(1, { content: 'gone' }), alice.sign(1, { content: 'kept' })]
  for (const note of [gone, kept]) await publish(relay, note)
  const listener = await connect(server.url)
  const listening = await subscribed(listener, { kinds: [5], authors: [alice.key] })
  const deletion = alice.sign(5, { content: 'a slip', tags: [['e', gone.id], ['k', '1']] })
  await publish(relay, deletion)
  assert.equal((await listening.live.next('the deletion')).id, deletion.id)
  assert.deepEqual(ids(await stored(relay, { kinds: [1], authors: [alice.key] })), [kept.id])
  assert.deepEqual(await stored(relay, { ids: [gone.id] }), [])
  assert.equal(await count(relay, { kinds: [1], authors: [alice.key] }), 1)
  await publish(relay, gone).catch(error => assert.match(error.message, /^(blocked|duplicate|invalid): /))
  assert.deepEqual(await stored(relay, { ids: [gone.id] }), [])
  listener.close()
})

test('an event that was deleted before it came is not stored', async () => {
  const alice = new Person()
  const note = alice.sign(1, { content: 'late' })
  await publish(relay, alice.sign(5, { tags: [['e', note.id]] }))
  await publish(relay, note).catch(error => assert.match(error.message, /^(blocked|duplicate|invalid): /))
  assert.deepEqual(await stored(relay, { ids: [note.id] }), [])
})

test('someone else deletes nothing', async () => {
  const [alice, eve] = [new Person(), new Person()]
  const note = alice.sign(1)
  await publish(relay, note)
  await assert.rejects(publish(relay, eve.sign(5, { tags: [['e', note.id]] })), /restricted: /)
  assert.deepEqual(ids(await stored(relay, { ids: [note.id] })), [note.id])
})

test('an address is deleted up to the deletion\'s time', async () => {
  const alice = new Person()
  const at = nowSecs() - 100
  const of = (content, offset) => alice.sign(30023, { content, tags: [['d', 'page']], at: at + offset })
  const address = `30023:${alice.key}:page`
  await publish(relay, of('first', 0))
  await publish(relay, alice.sign(5, { tags: [['a', address]], at: at + 10 }))
  assert.deepEqual(await stored(relay, { kinds: [30023], authors: [alice.key] }), [])
  const anew = of('anew', 20)
  await publish(relay, anew)
  assert.deepEqual(ids(await stored(relay, { kinds: [30023], authors: [alice.key] })), [anew.id])
})

test('a group message and a roster cannot be deleted', async () => {
  const alice = new Person()
  const group = new Person().key
  const message = alice.sign(445, { content: 'AAEAAg==', tags: [['h', group]] })
  await publish(relay, message)
  await refused(publish(relay, alice.sign(5, { tags: [['e', message.id]] })), /^blocked: /)
  assert.deepEqual(ids(await stored(relay, { kinds: [445], '#h': [group] })), [message.id])
})

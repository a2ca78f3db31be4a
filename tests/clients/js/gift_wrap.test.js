// NIP-17 and NIP-59 with nostr-tools: two people write to each other, and a third gets nothing by any request.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { Person, connect, connectAs, count, ids, publish, refused, stored, subscribed } from './support/client.js'
import { startRelay } from './support/server.js'
import { nip17, nip59 } from './support/tools.js'

let server

before(async () => {
  server = await startRelay()
})
after(() => server?.stop())

test('two people talk, each with a copy of their own messages', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const [at, bt] = [await connectAs(server.url, alice), await connectAs(server.url, bob)]
  const inbox = await subscribed(bt, { kinds: [1059], '#p': [bob.key] })

  const wraps = nip17.wrapManyEvents(alice.secret, [{ publicKey: bob.key }], 'the boat leaves at six', 'harbour')
  for (const wrap of wraps) await publish(at, wrap)
  const rumor = nip17.unwrapEvent(await inbox.live.next('the wrap'), bob.secret)
  assert.equal(rumor.content, 'the boat leaves at six')
  assert.equal(rumor.pubkey, alice.key)

  const answer = nip17.wrapEvent(bob.secret, { publicKey: alice.key }, 'I am coming', 'harbour', { eventId: rumor.id })
  await publish(bt, answer)
  const found = await stored(at, { kinds: [1059] })
  const texts = found.map(wrap => nip17.unwrapEvent(wrap, alice.secret).content)
  assert.deepEqual(texts.sort(), ['I am coming', 'the boat leaves at six'])
  at.close()
  bt.close()
})

test('another person gets no wrap: not stored, not live, not counted, not by id', async () => {
  const [alice, bob, eve] = [new Person(), new Person(), new Person()]
  const [at, bt, et] = [
    await connectAs(server.url, alice),
    await connectAs(server.url, bob),
    await connectAs(server.url, eve),
  ]
  const early = nip17.wrapEvent(alice.secret, { publicKey: bob.key }, 'early')
  await publish(at, early)

  const questions = [
    { kinds: [1059] },
    { kinds: [1059], '#p': [bob.key] },
    { '#p': [bob.key] },
    { ids: [early.id] },
    { authors: [early.pubkey] },
  ]
  for (const question of questions) {
    assert.deepEqual(await stored(et, question), [], `stored: ${JSON.stringify(question)}`)
    assert.equal(await count(et, question), 0, `counted: ${JSON.stringify(question)}`)
    assert.deepEqual(ids(await stored(bt, question)), [early.id], `for bob: ${JSON.stringify(question)}`)
  }
  // Even its sender cannot read the wrap, because the wrap's author is a random key.
  assert.deepEqual(await stored(at, { ids: [early.id] }), [])

  const eves = await subscribed(et, { kinds: [1059] }, { '#p': [bob.key] }, {})
  const bobs = await subscribed(bt, { kinds: [1059] })
  const late = nip17.wrapEvent(alice.secret, { publicKey: bob.key }, 'late')
  await publish(at, late)
  const mark = alice.sign(1, { content: 'after the wrap' })
  await publish(at, mark)
  assert.equal((await bobs.live.next('the late wrap')).id, late.id)
  assert.equal((await eves.live.next('the note after it')).id, mark.id)
  for (const relay of [at, bt, et]) relay.close()
})

test('a reader without a key is asked for AUTH, and an id tells it nothing', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const at = await connectAs(server.url, alice)
  const wrap = nip17.wrapEvent(alice.secret, { publicKey: bob.key }, 'hidden')
  await publish(at, wrap)
  const relay = await connect(server.url)
  await refused(stored(relay, { kinds: [1059], '#p': [bob.key] }), /^auth-required: /)
  await refused(count(relay, { kinds: [1059] }), /^auth-required: /)
  assert.deepEqual(await stored(relay, { ids: [wrap.id] }), [])
  assert.equal(await count(relay, { ids: [wrap.id] }), 0)
  assert.deepEqual(await stored(relay, { '#p': [bob.key] }), [])
  relay.close()
  at.close()
})

test('a wrap has one recipient', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const at = await connectAs(server.url, alice)
  const two = alice.sign(1059, { content: 'x', tags: [['p', bob.key], ['p', alice.key]] })
  await refused(publish(at, two), /^invalid: /)
  await refused(publish(at, alice.sign(1059, { content: 'x' })), /^invalid: /)
  at.close()
})

test('the recipient deletes a wrap, and it stays deleted', async () => {
  const [alice, bob, eve] = [new Person(), new Person(), new Person()]
  const [at, bt, et] = [
    await connectAs(server.url, alice),
    await connectAs(server.url, bob),
    await connectAs(server.url, eve),
  ]
  const wrap = nip59.wrapEvent({ kind: 14, content: 'to be deleted' }, alice.secret, bob.key)
  await publish(at, wrap)
  const deletion = person => person.sign(5, { tags: [['e', wrap.id], ['k', '1059']] })
  await publish(et, deletion(eve))
  assert.deepEqual(ids(await stored(bt, { kinds: [1059] })), [wrap.id], 'someone else deletes nothing')
  await publish(bt, deletion(bob))
  assert.deepEqual(await stored(bt, { kinds: [1059] }), [])
  await publish(at, wrap).catch(error => assert.match(error.message, /^(blocked|duplicate|invalid): /))
  assert.deepEqual(await stored(bt, { kinds: [1059] }), [])
  for (const relay of [at, bt, et]) relay.close()
})

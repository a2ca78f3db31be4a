// The gateway's kinds with nostr-tools, used as the specification's tables describe them.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import {
  Person, connect, connectAs, count, ids, nowSecs, publish, refused, stored, subscribed,
} from './support/client.js'
import { startRelay } from './support/server.js'

const admin = new Person()
let server

before(async () => {
  server = await startRelay({ admins: [admin.key] })
})
after(() => server?.stop())

/** Makes a 450, signed by `by`. `members` are instances of Person. */
function roster(group, seq, op, members, by = admin) {
  const keys = members.map(member => ['p', member.key])
  return by.sign(450, { tags: [['h', group], ['seq', `${seq}`], ['op', op], ...keys] })
}

function message(group, by, content = 'AAEAAg==') {
  return by.sign(445, { content, tags: [['h', group], ['k', '0']] })
}

test('a KeyPackage is its owner\'s, found by its tags, and refused when it has expired', async () => {
  const [alice, eve] = [new Person(), new Person()]
  const relay = await connect(server.url)
  const [first, second] = [alice.keyPackage(), alice.keyPackage()]
  for (const keyPackage of [first, second]) assert.equal(await publish(relay, keyPackage), '')
  assert.deepEqual(ids(await stored(relay, { kinds: [443], authors: [alice.key] })).sort(), ids([first, second]).sort())
  assert.deepEqual(ids(await stored(relay, { kinds: [443], '#p': [alice.key] })).sort(), ids([first, second]).sort())
  const reference = first.tags.find(tag => tag[0] === 'kpr')[1]
  await refused(publish(relay, alice.keyPackage({ reference })), /^invalid: /)
  await refused(publish(relay, alice.keyPackage({ endsAt: nowSecs() - 1 })), /^invalid: .*expired/)
  await refused(publish(relay, alice.keyPackage({ endsAt: nowSecs() * 1_000 })), /^invalid: .*milliseconds/)
  await refused(publish(relay, eve.sign(443, { content: first.content, tags: first.tags })), /^invalid: .*p tag/)
  relay.close()
})

test('members talk, an outsider gets nothing, and a removed member gets nothing more', async () => {
  const [alice, bob, eve] = [new Person(), new Person(), new Person()]
  const group = `grp_${alice.key.slice(0, 12)}`
  const [boss, at, bt, et] = await Promise.all([admin, alice, bob, eve].map(person => connectAs(server.url, person)))
  await publish(boss, roster(group, 1, 'bootstrap', [alice, bob]))

  const [bobs, eves] = [await subscribed(bt, { kinds: [445] }), await subscribed(et, { kinds: [445] }, { kinds: [1] })]
  // MLS clients sign each message by a new key, so the relay has to check the key that the connection has
  // authenticated.
  const first = message(group, new Person())
  await publish(at, first)
  assert.equal((await bobs.live.next('the first message')).id, first.id)
  await refused(publish(et, message(group, eve)), /^restricted: /)
  for (const question of [{ kinds: [445] }, { '#h': [group] }, { ids: [first.id] }]) {
    assert.deepEqual(await stored(et, question), [])
    assert.equal(await count(et, question), 0)
  }

  await publish(boss, roster(group, 2, 'remove', [bob]))
  const second = message(group, alice)
  await publish(at, second)
  const mark = alice.sign(1, { content: 'after the second message' })
  await publish(at, mark)
  assert.equal((await eves.live.next('the note')).id, mark.id)
  assert.deepEqual(await stored(bt, { '#h': [group] }), [])
  assert.deepEqual(bobs.live.rest, [])
  await refused(publish(bt, message(group, bob)), /^restricted: /)
  assert.deepEqual(ids(await stored(at, { kinds: [445] })).sort(), ids([first, second]).sort())
  for (const relay of [boss, at, bt, et]) relay.close()
})

test('a stale seq is told the current one, and a stranger is told nothing', async () => {
  const [alice, eve] = [new Person(), new Person()]
  const group = `grp_${alice.key.slice(0, 12)}`
  const [boss, et] = [await connectAs(server.url, admin), await connectAs(server.url, eve)]
  const founding = roster(group, 7, 'bootstrap', [alice])
  await publish(boss, founding)
  assert.match(await publish(boss, founding), /^duplicate:/)
  await refused(publish(boss, roster(group, 7, 'add', [eve])), /^invalid: roster seq 7 is not above 7$/)
  const reasons = []
  for (const attempt of [
    roster(group, 8, 'add', [eve], eve),
    roster(group, 1, 'add', [eve], eve),
    roster('grp_none', 1, 'bootstrap', [eve], eve),
  ]) {
    await publish(et, attempt).catch(error => reasons.push(error.message))
  }
  assert.equal(reasons.length, 3)
  assert.equal(new Set(reasons).size, 1, reasons.join('\n'))
  assert.match(reasons[0], /^restricted: /)
  boss.close()
  et.close()
})

test('an unlisted group is served only to requests that name it', async () => {
  const group = new Person().key
  const relay = await connect(server.url)
  const first = message(group, new Person())
  await publish(relay, first)
  assert.deepEqual(ids(await stored(relay, { kinds: [445], '#h': [group] })), [first.id])
  await refused(stored(relay, { kinds: [445] }), /^auth-required: /)
  await refused(publish(relay, message('grp_unknown', new Person())), /^(auth-required|restricted): /)
  const reader = await connectAs(server.url, new Person())
  assert.deepEqual(await stored(reader, { kinds: [445] }), [])
  assert.deepEqual(await stored(reader, { authors: [first.pubkey] }), [])
  relay.close()
  reader.close()
})

test('a Noise message is its recipient\'s', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const [at, bt] = [await connectAs(server.url, alice), await connectAs(server.url, bob)]
  const dm = alice.sign(446, { content: 'AAAA', tags: [['p', bob.key], ['v', 'noise.1']] })
  await publish(at, dm)
  assert.deepEqual(ids(await stored(bt, { kinds: [446] })), [dm.id])
  assert.deepEqual(await stored(at, { kinds: [446] }), [], 'not even its author reads it')
  await refused(publish(at, alice.sign(446, { content: 'AAAA', tags: [['p', bob.key]] })), /^invalid: /)
  at.close()
  bt.close()
})

test('a KeyPackage request is an admin\'s, and its recipient\'s', async () => {
  const [alice, eve] = [new Person(), new Person()]
  const [boss, at, et] = await Promise.all([admin, alice, eve].map(person => connectAs(server.url, person)))
  const tags = [['p', alice.key], ['min', '5'], ['ttl', '604800']]
  const request = admin.sign(447, { content: '{"reason":"stock_low"}', tags })
  await publish(boss, request)
  assert.deepEqual(ids(await stored(at, { kinds: [447] })), [request.id])
  assert.deepEqual(await stored(et, { kinds: [447] }), [])
  await refused(publish(et, eve.sign(447, { tags })), /^restricted: /)
  for (const relay of [boss, at, et]) relay.close()
})

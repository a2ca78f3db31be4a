// The conversation that each library has with a relay, with `auth.enabled` off and on.
//
// A library is given by a function that opens a client: `open(url, person)`, which authenticates as `person` in the way
// that the library's documentation shows. A client has these methods; a library without COUNT or NIP-77 has no `count`
// or `sync`:
//
//   publish(event)        resolves when the relay has accepted the event, and rejects with its reason
//   stored(filter)        resolves to the stored events, and rejects when the library tells of a failure
//   live(filter, heard)   resolves when the stored events have come, and gives `heard` each event, stored or later
//   count(filter)         resolves to a number
//   sync(filter, known)   resolves to the ids of the relay's events that are not among `known`
//   close()

import './environment.js'

import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'

import { startRelay } from '../../js/support/server.js'
import { within } from '../../js/support/wait.js'
import { Person, founding, message, wrap } from './person.js'

/** Clients that connect and ask at once, each of which may meet another order of the first messages. */
const FRESH_CLIENTS = 8
/** Events of a synchronisation: more than one message of NIP-77 names by id. */
const SYNCED_EVENTS = 60

/**
 * Counts answers, and among them the silent empty ones: the library reports the end of an answer without events that
 * exist, and no error.
 */
const answers = { all: 0, silent: 0 }

/** Expects these events, at least, in the first answer to a filter. */
export async function answered(client, filter, events) {
  const given = await within(client.stored(filter), `an answer to ${JSON.stringify(filter).slice(0, 200)}`)
  counted(new Set(given.map(event => event.id)), events)
}

/** Counts an answer that names these ids, and expects those of `events` among them. */
export function counted(ids, events) {
  const missing = events.filter(event => !ids.has(event.id))
  answers.all += 1
  if (missing.length > 0) answers.silent += 1
  assert.equal(missing.length, 0, `${missing.length} of ${events.length} events are not in the answer, and no error`)
}

/** A subscription that remembers the events that came. */
export async function listen(client, filter) {
  const heard = new Set()
  const news = []
  const told = event => {
    heard.add(event.id)
    for (const look of news.splice(0)) look()
  }
  await within(client.live(filter, told), 'the end of the stored events')
  return {
    ids: heard,
    async hears(event) {
      const look = async () => {
        while (!heard.has(event.id)) await new Promise(resolve => news.push(resolve))
      }
      await within(look(), `the live event of kind ${event.kind}`)
    },
  }
}

/**
 * Runs the conversation in both modes.
 *
 * @param {string} library The library's name.
 * @param {function} open Opens a client.
 * @param {function} [more] Defines further tests of a mode; gets a function that returns the mode's world.
 */
export function suite(library, open, more = () => {}) {
  for (const auth of [false, true]) {
    describe(`${library}, auth.enabled = ${auth}`, () => {
      const world = { admin: new Person(), clients: [] }
      world.open = async person => {
        const client = await within(open(world.relay.url, person), 'a client')
        world.clients.push(client)
        return client
      }
      before(async () => {
        // The variable shows that the tests need the wait for AUTH: with 0 some fail.
        const graceMs = process.env.RNOSTR_TEST_AUTH_GRACE_MS
        world.relay = await startRelay({ auth, graceMs, admins: [world.admin.key], unlimited: true })
      })
      afterEach(async () => {
        for (const client of world.clients.splice(0)) await client.close()
      })
      after(() => world.relay?.stop())
      conversation(world)
      more(() => world)
    })
  }
  test(`silent empty answers to ${library}`, context => {
    context.diagnostic(`silent empty answers: ${answers.silent} of ${answers.all}`)
    assert.ok(answers.all > 0)
    assert.equal(answers.silent, 0)
  })
}

function conversation(world) {
  test('a fresh client reads the wraps to it by its first request', async () => {
    const [alice, bob] = [new Person(), new Person()]
    const sender = await world.open(alice)
    const letter = wrap(bob)
    await within(sender.publish(letter), 'OK')
    for (let n = 0; n < FRESH_CLIENTS; n += 1) {
      await answered(await world.open(bob), { kinds: [1059], '#p': [bob.key] }, [letter])
    }
  })

  test('a fresh client publishes an event that needs AUTH', async () => {
    for (let n = 0; n < FRESH_CLIENTS; n += 1) {
      const alice = new Person()
      const client = await world.open(alice)
      const own = alice.sign(1, { content: 'mine', tags: [['-']] })
      await within(client.publish(own), 'OK')
      await answered(client, { kinds: [1], authors: [alice.key] }, [own])
    }
  })

  test('a subscription gets the stored events and the later ones', async () => {
    const [alice, bob] = [new Person(), new Person()]
    const [at, bt] = [await world.open(alice), await world.open(bob)]
    const first = alice.sign(1, { content: 'first' })
    await within(at.publish(first), 'OK')
    const notes = await listen(bt, { kinds: [1], authors: [alice.key] })
    counted(notes.ids, [first])
    const second = alice.sign(1, { content: 'second' })
    await within(at.publish(second), 'OK')
    await notes.hears(second)
    const wraps = await listen(bt, { kinds: [1059], '#p': [bob.key] })
    const letter = wrap(bob)
    await within(at.publish(letter), 'OK')
    await wraps.hears(letter)
  })

  test('members of a managed group read and write, and nobody else does', async () => {
    const [alice, bob, eve] = [new Person(), new Person(), new Person()]
    const group = `grp_${alice.key.slice(0, 12)}`
    const [boss, at] = [await world.open(world.admin), await world.open(alice)]
    const roster = founding(world.admin, group, [alice, bob])
    await within(boss.publish(roster), 'OK')
    const first = message(group)
    await within(at.publish(first), 'OK')
    const bt = await world.open(bob)
    await answered(bt, { kinds: [445], '#h': [group] }, [first])
    await answered(bt, { kinds: [450], '#h': [group] }, [roster])
    const heard = await listen(bt, { kinds: [445], '#h': [group] })
    const second = message(group)
    await within(at.publish(second), 'OK')
    await heard.hears(second)
    const et = await world.open(eve)
    assert.deepEqual(await within(et.stored({ kinds: [445], '#h': [group] }), 'an answer'), [])
    await assert.rejects(within(et.publish(message(group)), 'OK'), /restricted: /)
  })

  test('COUNT and NIP-77 see what a member sees', async context => {
    const [alice, bob] = [new Person(), new Person()]
    const group = `grp_${alice.key.slice(0, 12)}`
    const [boss, at] = [await world.open(world.admin), await world.open(alice)]
    await within(boss.publish(founding(world.admin, group, [alice, bob])), 'OK')
    const messages = Array.from({ length: SYNCED_EVENTS }, () => message(group))
    // The first OK comes behind AUTH. @welshman/net sends no more than 50 events again once it has authenticated.
    await within(at.publish(messages[0]), 'OK')
    await within(Promise.all(messages.slice(1).map(event => at.publish(event))), 'OK')
    const client = await world.open(bob)
    const filter = { kinds: [445], '#h': [group] }
    await answered(client, filter, messages)
    if (client.count) {
      const count = await within(client.count(filter), 'COUNT')
      answers.all += 1
      if (count < messages.length) answers.silent += 1
      assert.equal(count, messages.length)
    } else {
      context.diagnostic('this library has no COUNT')
    }
    if (client.sync) {
      const known = messages.slice(0, SYNCED_EVENTS / 2)
      counted(new Set(await within(client.sync(filter, known), 'NIP-77')), messages.slice(SYNCED_EVENTS / 2))
    } else {
      context.diagnostic('this library has no NIP-77')
    }
  })

  test('subscriptions outlive a restart of the relay', async () => {
    const [alice, bob] = [new Person(), new Person()]
    const group = `grp_${alice.key.slice(0, 12)}`
    const [boss, at, bt] = [await world.open(world.admin), await world.open(alice), await world.open(bob)]
    await within(boss.publish(founding(world.admin, group, [alice, bob])), 'OK')
    const before = [message(group), wrap(bob)]
    for (const event of before) await within(at.publish(event), 'OK')
    const filters = [{ kinds: [445], '#h': [group] }, { kinds: [1059], '#p': [bob.key] }]
    const [messages, wraps] = [await listen(bt, filters[0]), await listen(bt, filters[1])]
    await world.relay.restart()
    const again = await world.open(alice)
    // @welshman/net asks for the events since the second of the loss, and rounds that up as often as down.
    const nextSecond = Math.floor(Date.now() / 1000) + 1
    const later = [message(group, nextSecond), wrap(bob, nextSecond)]
    for (const event of later) await within(again.publish(event), 'OK')
    await messages.hears(later[0])
    await wraps.hears(later[1])
    await answered(bt, filters[0], [before[0], later[0]])
    await answered(bt, filters[1], [before[1], later[1]])
    const reply = message(group)
    await within(bt.publish(reply), 'OK')
    await answered(again, filters[0], [reply])
  })
}

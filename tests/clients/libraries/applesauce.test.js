// applesauce-relay: a relay as observables. Its documentation shows `authenticate` on each challenge.

import './support/environment.js'

import { test } from 'node:test'

import { Relay } from 'applesauce-relay'
import { lastValueFrom, toArray } from 'rxjs'

import { within } from '../js/support/wait.js'
import { Person } from './support/person.js'
import { answered, suite } from './support/suite.js'

/** Ids of one filter, more than the relay's default limit. */
const IDS = 700
/** Events that are under way at one time. */
const IDS_AT_ONCE = 50

async function open(url, person) {
  const relay = new Relay(url)
  const signer = { getPublicKey: async () => person.key, signEvent: async template => person.finalize(template) }
  relay.challenge$.subscribe(challenge => {
    if (challenge && !relay.authenticated) relay.authenticate(signer).catch(() => {})
  })
  return {
    async publish(event) {
      const response = await relay.publish(event)
      if (!response.ok) throw new Error(response.message)
    },
    stored: filter => lastValueFrom(relay.request(filter).pipe(toArray())),
    live: (filter, heard) =>
      new Promise((resolve, reject) => {
        const next = response => (response === 'EOSE' ? resolve() : heard(response))
        relay.subscription(filter).subscribe({ next, error: reject, complete: () => reject(new Error('it has ended')) })
      }),
    count: async filter => (await lastValueFrom(relay.count(filter))).count,
    async sync(filter, known) {
      const store = [...known]
      const events = await lastValueFrom(relay.sync(store, filter).pipe(toArray()))
      return events.map(event => event.id)
    },
    close: () => relay.close(),
  }
}

suite('applesauce-relay', open, world => {
  test('a filter of 700 ids without a limit gets all of them', async () => {
    const alice = new Person()
    const client = await world().open(alice)
    const notes = Array.from({ length: IDS }, (_, n) => alice.sign(1, { content: `${n}` }))
    for (let at = 0; at < IDS; at += IDS_AT_ONCE) {
      await within(Promise.all(notes.slice(at, at + IDS_AT_ONCE).map(note => client.publish(note))), 'OK')
    }
    await answered(client, { ids: notes.map(note => note.id) }, notes)
  })
})

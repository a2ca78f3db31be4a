// NDK: one object for a user's relays. Its documentation sets a policy for AUTH, which signs each challenge.

import './support/environment.js'

import { test } from 'node:test'

import NDK, { NDKEvent, NDKPrivateKeySigner, NDKRelayAuthPolicies, NDKRelaySet } from '@nostr-dev-kit/ndk'

import { WAIT_MS, within } from '../js/support/wait.js'
import { Person, wrap } from './support/person.js'
import { answered, suite } from './support/suite.js'

/** Clients that ask before they connect. */
const EARLY_CLIENTS = 4

/** A client that has not been asked to connect. */
function prepare(url, person) {
  const ndk = new NDK({
    explicitRelayUrls: [url],
    signer: new NDKPrivateKeySigner(person.secretHex),
    enableOutboxModel: false,
    autoConnectUserRelays: false,
  })
  ndk.relayAuthDefaultPolicy = NDKRelayAuthPolicies.signIn({ ndk })
  const relays = () => NDKRelaySet.fromRelayUrls([url], ndk)
  const raw = event => event.rawEvent()
  return {
    connect: () => ndk.connect(WAIT_MS),
    async publish(event) {
      const published = new NDKEvent(ndk, event)
      let failure
      published.on('relay:publish:failed', (_, error) => (failure = error))
      try {
        await published.publish(relays(), WAIT_MS)
      } catch (error) {
        throw failure ?? error
      }
    },
    stored: async filter => [...(await ndk.fetchEvents(filter))].map(raw),
    live: (filter, heard) =>
      new Promise((resolve, reject) => {
        const subscription = ndk.subscribe(filter, { onEvent: event => heard(raw(event)), onEose: () => resolve() })
        subscription.on('closed', (_, reason) => reject(new Error(reason)))
      }),
    count: async filter => (await ndk.count(filter, {}, relays())).count,
    close: () => ndk.pool.relays.forEach(relay => relay.disconnect()),
  }
}

async function open(url, person) {
  const client = prepare(url, person)
  await client.connect()
  return client
}

suite('NDK', open, world => {
  test('requests and events from before the connection are answered after AUTH', async () => {
    const [alice, bob] = [new Person(), new Person()]
    const letter = wrap(bob)
    await within((await world().open(alice)).publish(letter), 'OK')
    for (let n = 0; n < EARLY_CLIENTS; n += 1) {
      const client = prepare(world().relay.url, bob)
      world().clients.push(client)
      const own = bob.sign(1, { content: 'mine', tags: [['-']] })
      const answers = [answered(client, { kinds: [1059], '#p': [bob.key] }, [letter]), client.publish(own)]
      await within(client.connect(), 'a connection')
      await within(Promise.all(answers), 'the wrap and OK')
    }
  })
})

// A client of NDK. docs/clients.md shows each function, and guide.test.js runs them.

import NDK, { NDKEvent, NDKPrivateKeySigner, NDKRelayAuthPolicies, NDKRelaySet } from '@nostr-dev-kit/ndk'

const CONNECT_MS_MAX = 10_000

/** Connects with a key. The policy signs the relay's challenge, on each connection. */
export async function connect(url, secretHex) {
  const ndk = new NDK({
    explicitRelayUrls: [url],
    signer: new NDKPrivateKeySigner(secretHex),
    enableOutboxModel: false, // A group's messages are on this relay alone.
  })
  ndk.relayAuthDefaultPolicy = NDKRelayAuthPolicies.signIn({ ndk })
  await ndk.connect(CONNECT_MS_MAX)
  return ndk
}

/** Publishes a signed event as it is, such as a 445 of a throw-away key. Rejects with the relay's reason. */
export async function publish(ndk, url, event) {
  const published = new NDKEvent(ndk, event)
  let reason
  published.on('relay:publish:failed', (_, error) => {
    reason = error
  })
  try {
    await published.publish(NDKRelaySet.fromRelayUrls([url], ndk))
  } catch (error) {
    throw reason ?? error // NDK's own error tells how many relays failed; the other one is the relay's.
  }
}

/** Calls `heard` for each message of a group, and `refused` with the reason if the relay ends the subscription. */
export function follow(ndk, group, heard, refused) {
  const subscription = ndk.subscribe({ kinds: [445], '#h': [group] }, { onEvent: event => heard(event.rawEvent()) })
  subscription.on('closed', (_, reason) => refused(reason))
  return subscription
}

/** Gives the messages of a group since a time, the earliest `created_at` first. */
export async function catchUp(ndk, group, since) {
  const found = await ndk.fetchEvents({ kinds: [445], '#h': [group], since })
  return [...found].map(event => event.rawEvent()).sort((a, b) => a.created_at - b.created_at || (a.id < b.id ? -1 : 1))
}

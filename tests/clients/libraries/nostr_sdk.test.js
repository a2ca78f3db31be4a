// rust-nostr as WebAssembly, over `ws`: it authenticates by itself.

import './support/environment.js'

import sdk from '@rust-nostr/nostr-sdk'

import { WAIT_MS } from '../js/support/wait.js'
import { suite } from './support/suite.js'

const { Client, ClientBuilder, ClientMessage, ClientOptions, Duration, Event, Filter, Keys } = sdk
const { NostrSigner, RelayOptions, SyncDirection, SyncOptions } = sdk
sdk.loadWasmSync()

/** Time between two attempts to connect, in seconds. */
const RETRY_SECS = 1

const waiting = () => Duration.fromMillis(BigInt(WAIT_MS))
const filterOf = filter => Filter.fromJson(JSON.stringify(filter))

async function open(url, person) {
  const signer = NostrSigner.keys(Keys.parse(person.secretHex))
  const options = new ClientOptions().automaticAuthentication(true)
  const client = new ClientBuilder().signer(signer).opts(options).build()
  const relayOptions = new RelayOptions().retry_interval(Duration.fromSecs(RETRY_SECS)).adjust_retry_interval(false)
  await client.addRelayWithOpts(url, relayOptions)
  await client.tryConnect(waiting())
  const listeners = new Set()
  client.handleNotifications({
    handleEvent: async () => false,
    handleMsg: async (_, message) => {
      const frame = JSON.parse(message.asJson())
      for (const listener of listeners) listener(frame)
      return false
    },
  })
  /** Sends a request, and resolves to the first frame of these verbs that names its id. */
  const answer = (id, verbs) =>
    new Promise(resolve => {
      const listener = frame => {
        if (frame[1] !== id || !verbs.includes(frame[0])) return
        listeners.delete(listener)
        resolve(frame)
      }
      listeners.add(listener)
    })
  return {
    async publish(event) {
      const output = await client.sendEvent(Event.fromJson(JSON.stringify(event)))
      if (output.success.length === 0) throw new Error(output.failed[0]?.error)
    },
    async stored(filter) {
      const events = await client.fetchEvents(filterOf(filter), waiting())
      return events.toVec().map(event => JSON.parse(event.asJson()))
    },
    async live(filter, heard) {
      const { id } = await client.subscribe(filterOf(filter))
      listeners.add(frame => {
        if (frame[0] === 'EVENT' && frame[1] === id) heard(frame[2])
      })
      await answer(id, ['EOSE'])
    },
    async count(filter) {
      const counted = answer('count', ['COUNT', 'CLOSED'])
      await client.sendMsgTo([url], ClientMessage.count('count', filterOf(filter)))
      const frame = await counted
      if (frame[0] === 'CLOSED') throw new Error(frame[2])
      return frame[2].count
    },
    async sync(filter, known) {
      for (const event of known) await client.database.save_event(Event.fromJson(JSON.stringify(event)))
      const options = new SyncOptions().direction(SyncDirection.Down)
      const { report, failed } = await client.sync(filterOf(filter), options)
      if (failed.length > 0) throw new Error(failed[0].error)
      return report.received.map(id => id.toHex())
    },
    close: () => client.shutdown(),
  }
}

suite('rust-nostr (wasm)', open)

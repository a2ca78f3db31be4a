// A relay behind nginx, Caddy and HAProxy, each with its example of deploy/proxies.

import assert from 'node:assert/strict'
import { on, once } from 'node:events'
import { get } from 'node:https'
import { after, before, describe, test } from 'node:test'

import { Person } from '../js/support/client.js'
import { startRelay } from '../js/support/server.js'
import { WebSocket, nip42 } from '../js/support/tools.js'
import { within } from '../js/support/wait.js'
import { HOST, PROXIES, SILENCE_SECS, prepare } from './proxy.js'

const LOOPBACK = '127.0.0.1'
const PING_SECS = 5
/** Pings that come in more time than a proxy allows for silence. */
const PINGS = Math.floor(SILENCE_SECS / PING_SECS) + 2
/** Connections of one address. */
const CONNECTIONS = 3
/** Pause between two attempts to connect, in milliseconds. */
const RETRY_MS = 100

describe('a relay behind', { concurrency: true }, () => {
  for (const name of Object.keys(PROXIES)) describe(name, () => talk(name))
})

/** The tests of one proxy. */
function talk(name) {
  let proxy, running, relay, url

  before(async () => {
    proxy = await prepare(name)
    url = `wss://${HOST}:${proxy.port}`
    relay = await startRelay({
      server: {
        public_url: url,
        trusted_proxies: ['127.0.0.1/32'],
        ping_interval_secs: PING_SECS,
        connections_per_address_max: CONNECTIONS,
      },
    })
    running = await proxy.start(new URL(relay.http).port)
  })
  after(async () => {
    await running?.stop()
    await relay?.stop()
    await proxy?.remove()
  })

  /** Options by which a client at `address` of this machine finds the proxy under the relay's name. */
  const through = address => ({
    ca: proxy.ca,
    localAddress: address,
    agent: false,
    lookup: (_, { all }, found) => found(null, all ? [{ address: LOOPBACK, family: 4 }] : LOOPBACK, 4),
  })

  /** Opens a WebSocket, and rejects with the status of a refusal. */
  async function open(address, headers = {}) {
    const socket = new WebSocket(url, { ...through(address), headers })
    const frames = on(socket, 'message')
    await within(once(socket, 'open'), 'a WebSocket')
    const client = {
      socket,
      next: async () => JSON.parse((await within(frames.next(), 'a frame')).value[0]),
      async ask(...frame) {
        socket.send(JSON.stringify(frame))
        return client.next()
      },
    }
    client.challenge = (await client.next())[1]
    return client
  }

  /** Authenticates, and names the relay by this URL. Resolves to the relay's answer. */
  const auth = (client, person, named) => {
    const { kind, tags } = nip42.makeAuthEvent(named, client.challenge)
    return client.ask('AUTH', person.sign(kind, { tags }))
  }

  test('AUTH names the public URL', async () => {
    const [client, person] = [await open('127.0.1.1'), new Person()]
    const [, , accepted, reason] = await auth(client, person, relay.url)
    assert.equal(accepted, false)
    assert.ok(reason.includes(url), reason)
    assert.deepEqual((await auth(client, person, url)).slice(2), [true, ''])
    assert.deepEqual(await client.ask('REQ', 'wraps', { kinds: [1059] }), ['EOSE', 'wraps', ['finish']])
    client.socket.close()
  })

  test('the NIP-11 document is the relay\'s', async () => {
    const options = { ...through('127.0.1.2'), headers: { accept: 'application/nostr+json' } }
    const response = await new Promise((resolve, reject) => {
      get(url.replace('wss:', 'https:'), options, resolve).once('error', reject)
    })
    let text = ''
    for await (const part of response) text += part
    assert.equal(response.headers['content-type'], 'application/nostr+json')
    assert.equal(response.headers['access-control-allow-origin'], '*')
    assert.ok(JSON.parse(text).supported_nips.includes(42))
  })

  test('connections count by the address of their client, whatever it says in X-Forwarded-For', async () => {
    const held = []
    for (let n = 0; n < CONNECTIONS; n += 1) held.push(await open('127.0.1.3', { 'x-forwarded-for': `203.0.113.${n}` }))
    await assert.rejects(open('127.0.1.3', { 'x-forwarded-for': '203.0.113.99' }), /429/)
    held.push(await open('127.0.1.4'))
    for (const { socket } of held) socket.close()
    const metrics = await (await fetch(`${relay.http}/metrics`)).text()
    assert.match(metrics, /^mls_gateway_refusals_total\{reason="connections_per_address_max"\} [1-9]/m)
    assert.doesNotMatch(metrics, /^mls_gateway_unknown_client_addresses_total\{.*\} [1-9]/m)
  })

  test('strangers see no metrics', async () => {
    const response = await new Promise((resolve, reject) => {
      get(`https://${HOST}:${proxy.port}/metrics`, through('127.0.1.5'), resolve).once('error', reject)
    })
    response.resume()
    assert.equal(response.statusCode, 401)
  })

  test('pings keep a silent connection, which clients can use again after a restart of the relay', async () => {
    const client = await open('127.0.1.6')
    let pings = 0
    const enough = new Promise(resolve => client.socket.on('ping', () => (pings += 1) === PINGS && resolve()))
    await within(enough, `${PINGS} pings`)
    assert.deepEqual(await client.ask('REQ', 'notes', { kinds: [1] }), ['EOSE', 'notes', ['finish']])

    const lost = once(client.socket, 'close')
    await relay.restart()
    await within(lost, 'the end of the connection')
    let again
    const opens = async () => {
      while (!again) {
        again = await open('127.0.1.6').catch(() => undefined)
        if (!again) await new Promise(resolve => setTimeout(resolve, RETRY_MS))
      }
    }
    await within(opens(), 'a connection to the relay that came back')
    assert.deepEqual((await auth(again, new Person(), url)).slice(2), [true, ''])
    again.socket.close()
  })
}

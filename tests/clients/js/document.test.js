// NIP-11, the health check, compression of the WebSocket (permessage-deflate), and NIP-77 with nostr-tools'
// implementation.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, test } from 'node:test'

import { Person, connect, ids, nowSecs, publish, stored } from './support/client.js'
import { startRelay } from './support/server.js'
import { WebSocket, nip11, nip77 } from './support/tools.js'
import { Inbox, within } from './support/wait.js'

let server

before(async () => {
  server = await startRelay()
})
after(() => server?.stop())

test('the information document names the relay\'s NIPs, limits and kinds', async () => {
  const document = await within(nip11.fetchRelayInformation(server.url), 'the document')
  for (const nip of [1, 9, 11, 17, 40, 42, 45, 59, 62, 67, 70, 77, 86]) {
    assert.ok(document.supported_nips.includes(nip), `NIP-${nip}`)
  }
  assert.equal(document.limitation.auth_required, false)
  assert.equal(document.limitation.max_message_length, 1024 * 1024)
  assert.deepEqual(document.mls_gateway.membership_sources, ['roster', 'giftwrap'])
  for (const kind of [443, 445, 446, 447, 450, 1059])
    assert.ok(document.mls_gateway.kinds.includes(kind), `kind ${kind}`)
})

test('the document is open to web pages, and / is a page for people', async () => {
  const headers = { Accept: 'application/nostr+json', Origin: 'https://client.example' }
  const document = await fetch(server.http, { headers })
  assert.equal(document.headers.get('access-control-allow-origin'), '*')
  assert.match(document.headers.get('content-type'), /^application\/nostr\+json/)
  await document.body.cancel()
  const page = await fetch(server.http)
  assert.match(page.headers.get('content-type'), /^text\/html/)
  assert.match(await page.text(), /Nostr/)
})

test('/health is as specified', async () => {
  const health = await fetch(`${server.http}/health`)
  assert.equal(health.status, 200)
  const body = await health.json()
  assert.deepEqual(Object.keys(body), ['status', 'version', 'uptime_seconds'])
  assert.equal(body.status, 'healthy')
  assert.match(body.version, /^\d+\.\d+\.\d+/)
  assert.ok(Number.isInteger(body.uptime_seconds))
})

test('ws negotiates permessage-deflate, and a long event goes through it both ways', async () => {
  const relay = await connect(server.url)
  assert.match(relay.ws.extensions, /permessage-deflate/)
  const alice = new Person()
  const long = alice.sign(1, { content: 'all work and no play '.repeat(5_000) })
  const bytesBefore = relay.ws._socket.bytesWritten
  await publish(relay, long)
  assert.ok(relay.ws._socket.bytesWritten - bytesBefore < 10_000, 'it went out compressed')
  const readBefore = relay.ws._socket.bytesRead
  assert.equal((await stored(relay, { ids: [long.id] }))[0].content, long.content)
  assert.ok(relay.ws._socket.bytesRead - readBefore < 10_000, 'it came back compressed')
  relay.close()
})

test('a client without compression is served as well', async () => {
  const plain = await raw(server.url, { perMessageDeflate: false })
  assert.equal(plain.socket.extensions, '')
  plain.socket.send('["REQ","s",{"kinds":[1],"limit":0}]')
  assert.deepEqual(await plain.frames.next('EOSE'), ['EOSE', 's'])
  plain.socket.terminate()
})

test('a wrong message gets a reason, and the connection stays open', async () => {
  const { socket, frames } = await raw(server.url)
  for (const text of ['not JSON', '{}', '[]', '["NOPE"]', '["REQ"]']) {
    socket.send(text)
    const [verb, reason] = await frames.next(`an answer to ${text}`)
    assert.equal(verb, 'NOTICE', text)
    assert.match(reason, /^invalid: /, text)
  }
  socket.send('["REQ","s",{"kinds":["one"]}]')
  const [verb, id, reason] = await frames.next('CLOSED')
  assert.deepEqual([verb, id], ['CLOSED', 's'])
  assert.match(reason, /^invalid: /)
  socket.send(`["REQ","${'s'.repeat(65)}",{}]`)
  const refusal = await frames.next('a refusal')
  assert.ok(['CLOSED', 'NOTICE'].includes(refusal[0]), `${refusal}`)
  socket.send('["REQ","s",{"kinds":[1],"limit":0}]')
  assert.deepEqual(await frames.next('EOSE'), ['EOSE', 's'])
  socket.terminate()
})

test('NIP-77: each side learns which events it lacks', async () => {
  const relay = await connect(server.url)
  const alice = new Person()
  const at = nowSecs() - 100
  const notes = Array.from({ length: 20 }, (_, n) => alice.sign(1, { content: `${n}`, at: at + n }))
  const [theirs, both, ours] = [notes.slice(0, 5), notes.slice(5, 15), notes.slice(15)]
  for (const note of [...theirs, ...both]) await publish(relay, note)
  const storage = new nip77.NegentropyStorageVector()
  for (const note of [...both, ...ours]) storage.insert(note.created_at, note.id)
  storage.seal()
  const [have, need] = [[], []]
  const done = new Promise((resolve, reject) => {
    const sync = new nip77.NegentropySync(relay, storage, { authors: [alice.key] }, {
      onhave: id => have.push(id),
      onneed: id => need.push(id),
      onclose: reason => (reason ? reject(new Error(reason)) : resolve()),
    })
    sync.start()
  })
  await within(done, 'the end of the sync')
  assert.deepEqual(need.sort(), ids(theirs).sort())
  assert.deepEqual(have.sort(), ids(ours).sort())
  relay.close()
})

/** Opens a connection without nostr-tools. `frames` holds the received frames after the challenge. */
async function raw(url, options) {
  const socket = new WebSocket(url, options)
  const frames = new Inbox()
  socket.on('message', data => frames.push(JSON.parse(data)))
  await within(once(socket, 'open'), 'a connection')
  assert.equal((await frames.next('a challenge'))[0], 'AUTH')
  return { socket, frames }
}

// KeyPackages by ts-mls, claimed over REST: two clients of that library build a group from one.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, test } from 'node:test'

import {
  createApplicationMessage, createCommit, createGroup, decodeMlsMessage, defaultCapabilities, defaultLifetime,
  emptyPskIndex, encodeMlsMessage, generateKeyPackage, getCiphersuiteFromName, getCiphersuiteImpl, joinGroup,
  processPrivateMessage,
} from 'ts-mls'

import { Person, connect, nowSecs, publish } from './support/client.js'
import { startRelay } from './support/server.js'

const SUITE = 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'
let server
let suite

before(async () => {
  server = await startRelay({ verify: 'enforce' })
  suite = await getCiphersuiteImpl(getCiphersuiteFromName(SUITE))
})
after(() => server?.stop())

/** Makes a KeyPackage of a person, with its secrets. ts-mls puts values of GREASE into the capabilities. */
async function keyPackage(person) {
  const credential = { credentialType: 'basic', identity: Buffer.from(person.key, 'hex') }
  return generateKeyPackage(credential, defaultCapabilities(), defaultLifetime, [], suite)
}

function event(person, { publicPackage }) {
  const bytes = encodeMlsMessage({ keyPackage: publicPackage, wireformat: 'mls_key_package', version: 'mls10' })
  return person.sign(443, { content: Buffer.from(bytes).toString('base64'), tags: [['p', person.key], ['cs', SUITE]] })
}

/** Claims KeyPackages by NIP-98. */
async function claim(person, body, headers = {}) {
  const url = `${server.http}/api/v1/mls/keypackages/claim`
  const text = JSON.stringify(body)
  const tags = [
    ['u', url], ['method', 'POST'], ['payload', createHash('sha256').update(text).digest('hex')],
    ['salt', Math.random().toString()],
  ]
  const proof = Buffer.from(JSON.stringify(person.sign(27235, { tags, at: nowSecs() }))).toString('base64')
  return fetch(url, {
    method: 'POST', body: text,
    headers: { 'content-type': 'application/json', authorization: `Nostr ${proof}`, ...headers },
  })
}

test('ts-mls reads a claimed KeyPackage and builds a group from it', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const relay = await connect(server.url)
  const packages = [await keyPackage(bob), await keyPackage(bob)]
  const events = packages.map(made => event(bob, made))
  for (const one of events) assert.equal(await publish(relay, one), '')
  relay.close()
  // nostr-tools marks an event that it signed, and the relay's JSON has no such mark.
  const [first] = events.map(one => JSON.parse(JSON.stringify(one)))

  const answer = await claim(alice, { owner: bob.key, ciphersuite: SUITE }, { 'idempotency-key': 'first' })
  assert.equal(answer.status, 200)
  const { keypackages: [claimed], remaining } = await answer.json()
  assert.deepEqual([claimed.event, claimed.last_resort, remaining], [first, false, 1])
  assert.deepEqual([claimed.owner, claimed.ciphersuite], [bob.key, SUITE])
  assert.match(claimed.key_reference, /^[0-9a-f]{64}$/)
  assert.match(claimed.expires_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  const again = await claim(alice, { owner: bob.key, ciphersuite: SUITE }, { 'idempotency-key': 'first' })
  assert.deepEqual((await again.json()).keypackages[0].event, first)

  const [message] = decodeMlsMessage(Buffer.from(claimed.event.content, 'base64'), 0)
  assert.equal(message.wireformat, 'mls_key_package')
  const own = await keyPackage(alice)
  const group = await createGroup(Buffer.from('group'), own.publicPackage, own.privatePackage, [], suite)
  const add = { proposalType: 'add', add: { keyPackage: message.keyPackage } }
  const commit = await createCommit({ state: group, cipherSuite: suite }, { extraProposals: [add] })
  const { publicPackage, privatePackage } = packages[0]
  const tree = commit.newState.ratchetTree
  const joined = await joinGroup(commit.welcome, publicPackage, privatePackage, emptyPskIndex, suite, tree)
  const said = await createApplicationMessage(commit.newState, Buffer.from('hello'), suite)
  const heard = await processPrivateMessage(joined, said.privateMessage, emptyPskIndex, suite)
  assert.equal(Buffer.from(heard.message).toString(), 'hello')
})

test('a claim of an unknown owner is 404, and one without a proof 401', async () => {
  const answer = await claim(new Person(), { owner: new Person().key })
  assert.equal(answer.status, 404)
  assert.equal(answer.headers.get('content-type'), 'application/problem+json')
  const bare = await fetch(`${server.http}/api/v1/mls/keypackages/claim`, {
    method: 'POST', body: '{}', headers: { 'content-type': 'application/json' },
  })
  assert.equal(bare.status, 401)
  assert.equal(bare.headers.get('www-authenticate'), 'Nostr')
})

#!/usr/bin/env node
// The specification's WebSocket test: a client against a running relay, one line a check.
//
//   npm ci --prefix tests/clients/js      once
//   node test-websocket.js [URL]          default: $RELAY_URL, or ws://127.0.0.1:8080
//
// The client publishes with a new key, or with NOSTR_SECRET_KEY (hex or nsec) if the relay accepts residents alone, and
// deletes its events at the end. It prints the counts last; the exit code is 1 if a check failed.
'use strict'

const { randomBytes } = require('node:crypto')
const path = require('node:path')

const WAIT_MS = 10_000
const CIPHERSUITE = 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'

async function main() {
  const tools = await load()
  const url = relayUrl(process.argv[2] ?? process.env.RELAY_URL ?? 'ws://127.0.0.1:8080')
  const secret = secretKey(tools, process.env.NOSTR_SECRET_KEY)
  console.log(`relay ${url}`)
  const { passed, failed } = await run(new Test(tools, url, secret))
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

async function run(test) {
  const checks = [
    ['GET /health says healthy', test.health],
    ['the information document (NIP-11) names NIP-01 and NIP-42', test.document],
    ['connects, and a challenge comes', test.connect],
    ['authenticates (NIP-42)', test.authenticate],
    ['publishes a KeyPackage (443)', test.publishKeyPackage],
    ['reads the KeyPackage back, as it was signed', test.readKeyPackage],
    ['a KeyPackage in another\'s name is refused', test.refuseForeignKeyPackage],
    ['a subscription gets EOSE, and then a note as it is published', test.subscribe],
    ['counts its notes (NIP-45)', test.count],
    ['what is no message gets a NOTICE, and the connection goes on', test.notice],
    ['deletes what it published (NIP-09)', test.clean],
  ]
  const result = { passed: 0, failed: 0 }
  try {
    for (const [name, check] of checks) {
      try {
        const detail = await check.call(test)
        result.passed += 1
        console.log(`ok      ${name}${detail ? `: ${detail}` : ''}`)
      } catch (error) {
        result.failed += 1
        console.log(`FAILED  ${name}: ${error.message}`)
        if (error instanceof NoConnection) break
      }
    }
  } finally {
    test.socket?.terminate()
  }
  return result
}

/** Without a connection there is nothing more to check. */
class NoConnection extends Error {}

class Test {
  constructor(tools, url, secret) {
    Object.assign(this, { tools, url, secret, frames: [], waiting: [], published: [] })
    this.key = tools.getPublicKey(secret)
    this.http = url.replace(/^ws/, 'http')
  }

  async health() {
    const signal = AbortSignal.timeout(WAIT_MS)
    const answer = await fetch(new URL('/health', this.http), { signal }).catch(unreachable)
    expect(answer.status === 200, `status ${answer.status}`)
    const body = await answer.json()
    expect(body.status === 'healthy', JSON.stringify(body))
    expect(typeof body.version === 'string' && Number.isInteger(body.uptime_seconds), JSON.stringify(body))
    return `version ${body.version}, up ${body.uptime_seconds} s`
  }

  async document() {
    const headers = { Accept: 'application/nostr+json' }
    const answer = await fetch(this.http, { headers, signal: AbortSignal.timeout(WAIT_MS) })
    const document = await answer.json()
    for (const nip of [1, 42]) expect(document.supported_nips?.includes(nip), `NIP-${nip} is not in supported_nips`)
    this.enforces = document.mls_gateway?.verify_keypackages === 'enforce'
    return document.name
  }

  async connect() {
    const socket = new this.tools.WebSocket(this.url)
    this.socket = socket
    socket.on('message', data => this.take(JSON.parse(data)))
    await within('a connection', new Promise((resolve, reject) => {
      socket.once('open', resolve)
      socket.once('error', error => reject(new NoConnection(error.message)))
    }))
    socket.on('error', () => {})
    const [, challenge] = await this.find('a challenge', frame => frame[0] === 'AUTH')
    expect(typeof challenge === 'string' && challenge.length >= 16, 'the challenge is too short')
    this.challenge = challenge
    return challenge
  }

  async authenticate() {
    const event = this.sign(this.tools.nip42.makeAuthEvent(this.url, this.challenge))
    this.send(['AUTH', event])
    const { accepted, reason } = await this.answer(event)
    expect(accepted, reason)
    return `as ${this.tools.nip19.npubEncode(this.key)}`
  }

  async publishKeyPackage() {
    const content = randomBytes(300).toString('base64')
    const event = this.event(443, content, this.keyPackageTags(this.key))
    const { accepted, reason } = await this.publish(event)
    if (this.enforces) {
      // The content is random bytes and no KeyPackage.
      expect(!accepted && reason.startsWith('invalid:'), 'a relay with verify_keypackages = "enforce" took filler')
      return `refused, as verify_keypackages = "enforce" has it: ${reason}`
    }
    expect(accepted, reason)
    this.keyPackage = event
    return event.id
  }

  async readKeyPackage() {
    const found = await this.stored({ kinds: [443], authors: [this.key], limit: 10 })
    if (this.enforces) return `${found.length} stored`
    const same = found.find(event => event.id === this.keyPackage.id)
    expect(same, 'it was not found')
    expect(same.content === this.keyPackage.content && this.tools.verifyEvent(same), 'it came back changed')
    return undefined
  }

  async refuseForeignKeyPackage() {
    const other = this.tools.getPublicKey(this.tools.generateSecretKey())
    const event = this.event(443, randomBytes(300).toString('base64'), this.keyPackageTags(other))
    const { accepted, reason } = await this.publish(event)
    expect(!accepted, 'it was taken')
    expect(reason.startsWith('invalid:'), reason)
    return reason
  }

  async subscribe() {
    const filter = { kinds: [1], authors: [this.key], since: Math.floor(Date.now() / 1000) - 60 }
    this.send(['REQ', 'live', filter])
    await this.find('EOSE', frame => frame[0] === 'EOSE' && frame[1] === 'live')
    const note = this.event(1, 'test-websocket.js was here', [])
    const { accepted, reason } = await this.publish(note)
    expect(accepted, reason)
    this.note = note
    await this.find('the note', frame => frame[0] === 'EVENT' && frame[1] === 'live' && frame[2].id === note.id)
    this.send(['CLOSE', 'live'])
  }

  async count() {
    expect(this.note, 'no note was published')
    this.send(['COUNT', 'count', { ids: [this.note.id] }])
    const frame = await this.find('COUNT', ([verb, id]) => ['COUNT', 'CLOSED'].includes(verb) && id === 'count')
    expect(frame[0] === 'COUNT' && frame[2].count === 1, JSON.stringify(frame))
  }

  async notice() {
    this.socket.send('this is no JSON')
    const [, reason] = await this.find('a NOTICE', frame => frame[0] === 'NOTICE')
    expect((await this.stored({ kinds: [1], authors: [this.key], limit: 0 })).length === 0, 'limit 0 gave events')
    return reason
  }

  async clean() {
    expect(this.published.length > 0, 'nothing was published')
    const ids = this.published.map(event => event.id)
    const { accepted, reason } = await this.publish(this.event(5, '', ids.map(id => ['e', id])))
    expect(accepted, reason)
    expect((await this.stored({ ids })).length === 0, 'it is still there')
    return `${ids.length} events`
  }

  keyPackageTags(owner) {
    const end = Math.floor(Date.now() / 1000) + 86_400
    return [['p', owner], ['cs', CIPHERSUITE], ['kpr', randomBytes(32).toString('hex')], ['exp', `${end}`]]
  }

  event(kind, content, tags) {
    return this.sign({ kind, content, tags, created_at: Math.floor(Date.now() / 1000) })
  }

  sign(template) {
    return this.tools.finalizeEvent(template, this.secret)
  }

  async publish(event) {
    this.send(['EVENT', event])
    const answer = await this.answer(event)
    if (answer.accepted && event.kind !== 5) this.published.push(event)
    return answer
  }

  async answer(event) {
    const [, , accepted, reason] = await this.find('OK', frame => frame[0] === 'OK' && frame[1] === event.id)
    return { accepted, reason }
  }

  async stored(filter) {
    this.send(['REQ', 'stored', filter])
    const events = []
    for (;;) {
      const [verb, , body] = await this.find('EOSE', frame => frame[0] !== 'OK' && frame[1] === 'stored')
      expect(verb !== 'CLOSED', body)
      if (verb === 'EOSE') break
      events.push(body)
    }
    this.send(['CLOSE', 'stored'])
    return events
  }

  send(message) {
    this.socket.send(JSON.stringify(message))
  }

  take(frame) {
    const at = this.waiting.findIndex(({ fits }) => fits(frame))
    if (at < 0) this.frames.push(frame)
    else this.waiting.splice(at, 1)[0].resolve(frame)
  }

  /** The first frame that fits, among those received and those to come. */
  find(what, fits) {
    const at = this.frames.findIndex(fits)
    if (at >= 0) return Promise.resolve(this.frames.splice(at, 1)[0])
    const come = new Promise(resolve => this.waiting.push({ fits, resolve }))
    return within(what, come).finally(() => {
      this.waiting = this.waiting.filter(waiter => waiter.fits !== fits)
    })
  }
}

function unreachable(error) {
  throw new NoConnection(`${error.cause?.message || error.message}; start the relay, or give its URL`)
}

function expect(holds, otherwise) {
  if (!holds) throw new Error(otherwise)
}

async function within(what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${WAIT_MS / 1000} s`)), WAIT_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

function relayUrl(text) {
  if (!URL.canParse(text) || !/^wss?:$/.test(new URL(text).protocol)) {
    throw new Usage(`${text} is not a relay's URL; write it as ws://127.0.0.1:8080`)
  }
  return text.replace(/\/$/, '')
}

function secretKey(tools, text) {
  if (!text) return tools.generateSecretKey()
  if (/^[0-9a-f]{64}$/.test(text)) return Uint8Array.from(Buffer.from(text, 'hex'))
  try {
    const { type, data } = tools.nip19.decode(text)
    if (type === 'nsec') return data
  } catch { /* The error below names both forms. */ }
  throw new Usage('NOSTR_SECRET_KEY is neither 64 lower-case hex digits nor an nsec')
}

/** An error that the user can correct. */
class Usage extends Error {}

/** Loads the packages of tests/clients/js, which pins their versions. */
async function load() {
  try {
    return await import('./tests/clients/js/support/tools.js')
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
    const directory = path.relative('.', path.join(__dirname, 'tests', 'clients', 'js'))
    throw new Usage(`nostr-tools and ws are missing; install them: npm ci --prefix ${directory}`)
  }
}

main().catch(error => {
  console.error(error instanceof Usage ? `error: ${error.message}` : error)
  process.exitCode = 2
})

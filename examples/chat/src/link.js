// The relay: news over a WebSocket that comes back by itself, and requests of REST with proofs by NIP-98.

import { getToken } from 'nostr-tools/nip98'
import { finalizeEvent } from 'nostr-tools/pure'

const [RETRY_MS_MIN, RETRY_MS_MAX, ANSWER_MS_MAX] = [500, 15_000, 20_000]

export class Link {
  #pause = RETRY_MS_MIN
  /** Calls `on.ready` after each AUTH, `on.heard` with each live event, `on.told` with the state in words, or ''. */
  constructor(url, secret, on) {
    Object.assign(this, { url: url.replace(/\/+$/, ''), on })
    const now = () => Math.floor(Date.now() / 1000)
    /** Signs an event, by the person's key unless another one is given. */
    this.sign = (event, by = secret) => finalizeEvent({ created_at: now(), content: '', ...event }, by)
  }

  open() {
    const socket = new WebSocket(this.url)
    const send = (...frame) => socket.send(JSON.stringify(frame))
    socket.onmessage = ({ data }) => {
      const [verb, first, second, third] = JSON.parse(data)
      const proof = () => this.sign({ kind: 22242, tags: [['relay', this.url], ['challenge', first]] })
      if (verb === 'AUTH') send('AUTH', proof())
      // No stored events: REST gives those in the order of receipt, which MLS needs.
      if (verb === 'OK' && second) send('REQ', 'news', { kinds: [445, 1059], limit: 0 })
      if (verb === 'OK' && !second) this.on.told(`The relay refuses your key: ${third}`)
      if (verb === 'CLOSED') this.on.told(`The relay sends no news: ${second}`)
      if (verb === 'EVENT') this.on.heard(second)
      if (verb !== 'EOSE') return
      this.#pause = RETRY_MS_MIN
      this.on.told('')
      this.on.ready()
    }
    socket.onclose = () => {
      this.on.told('The relay does not answer. The chat tries again by itself.')
      setTimeout(() => this.open(), this.#pause)
      this.#pause = Math.min(this.#pause * 2, RETRY_MS_MAX)
    }
  }

  /** Answers with the relay's JSON. An error has the relay's reason, and `isFinal` if asking again is of no use. */
  async rest(method, path, body) {
    const url = `${this.url.replace(/^ws/, 'http')}/api/v1/mls/${path}`
    const authorization = await getToken(url, method, event => this.sign(event), true, body)
    const headers = { authorization, ...(body && { 'content-type': 'application/json' }) }
    const request = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(ANSWER_MS_MAX) }
    const answer = await fetch(url, request).catch(() => { throw new Error('The relay does not answer. Try again.') })
    const json = await answer.json().catch(() => ({ detail: `The relay answered ${answer.status} to ${path}.` }))
    if (answer.ok) return json
    const isFinal = answer.status < 500 && answer.status !== 429
    throw Object.assign(new Error(json.detail), { status: answer.status, isFinal })
  }
}

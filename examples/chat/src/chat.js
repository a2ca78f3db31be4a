// The person's groups. IndexedDB holds them with their MLS states, so tabs of one person take turns by a lock.

import { createStore, entries, get, set } from 'idb-keyval'
import { encrypt, getConversationKey } from 'nostr-tools/nip44'
import { createRumor, createSeal, unwrapEvent } from 'nostr-tools/nip59'
import { generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
import { Link } from './link.js'
import * as mls from './mls.js'

/** Bounds of the lists that this browser keeps, and of the names and texts in them, in characters. */
const [PACKAGES_MAX, WRAPS_MAX, MESSAGES_MAX, NAME_MAX, TEXT_MAX] = [32, 200, 2_000, 60, 4_000]
/** KeyPackages that the relay should have; the pause before an event that it did not take yet is sent again. */
const [STOCK, AGAIN_MS] = [5, 10_000]
const NEW = { messages: [], outbox: [], isFounded: false, isRemoved: false }
const ID = /^chat-[0-9a-f-]{36}$/
const put = (list, item, most) => [...list, item].slice(-most)

export class Chat {
  /** The groups as they are stored, the newest first, each with its members. */
  groups = []
  #store; #link; #secret; #name; #on; #again

  /** `on` has `changed`, for changes of `groups`, `told` of `Link`, and `failed`, for errors that no call tells. */
  constructor({ url, secret, name }, on) {
    this.key = getPublicKey(secret)
    ;[this.#secret, this.#name, this.#on] = [secret, name, on]
    this.#store = createStore(`chat ${this.key} ${url}`, 'kept')
    const work = run => this.#locked(run).catch(on.failed)
    this.#again = () => work(() => this.#catchUp())
    this.#link = new Link(url, secret, { ...on, ready: this.#again, heard: event => work(() => this.#hear(event)) })
    this.#show().then(() => this.#link.open())
  }

  /** Makes a group of one. The relay knows it from the first invitation on. */
  async found(name) {
    const group = { ...NEW, id: `chat-${crypto.randomUUID()}`, name, admin: this.key, made: Date.now() }
    await this.#locked(async () => this.#save({ ...group, state: await mls.found(this.key, group.id) }))
    return group.id
  }
  say(id, text) {
    return this.#change(id, async group => {
      const { state, content } = await mls.encrypt(group.state, JSON.stringify({ name: this.#name, text }))
      group.state = state
      return [{ event: this.#message(id, content), text }]
    })
  }

  /** Adds a person: by a Welcome that founds the group at the relay, and later by a roster, a commit and a Welcome. */
  invite(id, key) {
    return this.#change(id, async group => {
      if (mls.members(group.state).some(member => member.key === key)) throw new Error('They are a member already.')
      const { commit, welcome, state } = await mls.add(group.state, await this.#claim(key), key)
      const wrap = this.#wrap(key, welcome, group)
      if (!group.isFounded) return [{ event: wrap, state, isFounding: true }]
      return [await this.#roster(id, 'add', key), { event: this.#message(id, commit), state }, { event: wrap }]
    })
  }

  /** Removes a person: by a commit, which that person still gets, and right after it from the relay's list. */
  remove(id, key) {
    return this.#change(id, async group => {
      const { leaf } = mls.members(group.state).find(member => member.key === key)
      const { commit, state } = await mls.remove(group.state, leaf)
      return [{ event: this.#message(id, commit), state }, await this.#roster(id, 'remove', key)]
    })
  }

  #locked(work) { return navigator.locks.request(`chat ${this.key}`, work).finally(() => this.#show()) }
  #save(group) { return set(group.id, group, this.#store) }
  #publish(event) { return this.#link.rest('POST', 'events', event) }
  async #own() { return (await get('own', this.#store)) ?? { packages: [], wraps: [] } }
  async #kept() { return (await entries(this.#store)).flatMap(([id, group]) => (ID.test(id) ? [group] : [])) }
  async #show() {
    const groups = (await this.#kept()).sort((a, b) => b.made - a.made)
    this.groups = groups.map(group => ({ ...group, members: mls.members(group.state) }))
    this.#on.changed()
  }

  /** Keeps the events that `make` gives, sends them in their order, and reads them in the relay's order. */
  #change(id, make) {
    return this.#locked(async () => {
      const group = await get(id, this.#store)
      if (group.outbox.some(({ state }) => state)) await this.#settle(group)
      const [items, batch] = [await make(group), crypto.randomUUID()]
      group.outbox.push(...items.map(item => ({ ...item, batch })))
      await this.#save(group)
      await this.#show()
      await this.#settle(group).catch(error => {
        if (error.isFinal) throw error
        setTimeout(this.#again, AGAIN_MS)
      })
    })
  }

  /** Sends the events that wait and reads those that came. A refusal drops the events that were made together. */
  async #settle(group) {
    for (let item; (item = group.outbox.find(({ isSent }) => !isSent)); await this.#save(group)) {
      try {
        await this.#publish(item.event)
      } catch (error) {
        if (error.isFinal) group.outbox = group.outbox.filter(({ batch }) => batch !== item.batch)
        await this.#save(group)
        throw error
      }
      item.isSent = true
      if (item.isFounding) Object.assign(group, { state: item.state, isFounded: true })
      if (item.event.kind !== 445) group.outbox = group.outbox.filter(other => other !== item)
    }
    for (let more = group.isFounded && !group.isRemoved; more; await this.#save(group)) {
      const page = await this.#page(`messages?group=${group.id}&`, group.cursor)
      for (const event of page.events) await this.#take(group, event)
      group.cursor = page.next_cursor
      more = page.has_more && !group.isRemoved
    }
  }
  async #take(group, { id, content, created_at: at }) {
    const say = (by, name, text) => { group.messages = put(group.messages, { by, name, text, at }, MESSAGES_MAX) }
    const own = group.outbox.find(({ event }) => event.id === id)
    group.outbox = group.outbox.filter(item => item !== own)
    if (own?.text) return say(this.key, this.#name, own.text)
    // A commit counts at its place among the messages, for its author as for everybody.
    if (own) return Object.assign(group, { state: own.state })
    try {
      const { by, state, text, isRemoved } = await mls.read(group.state, content, group.admin)
      Object.assign(group, { state, isRemoved })
      const { name, text: words } = JSON.parse(text ?? '{}')
      if (words) say(by, `${name}`.slice(0, NAME_MAX), `${words}`.slice(0, TEXT_MAX))
    } catch {} // Older than this member, read before, or no MLS at all.
  }
  async #hear({ kind, tags }) {
    const group = await get(Object.fromEntries(tags).h ?? '', this.#store)
    if (kind === 1059) await this.#readInbox()
    else if (group) await this.#settle(group)
  }
  /** Brings everything up to date after the connection was away. */
  async #catchUp() {
    await this.#stockUp()
    await this.#readInbox()
    for (const group of await this.#kept()) {
      await this.#settle(group).catch(this.#on.failed)
      // A former member gets no commit from the relay, and no answer about the group.
      if (!group.isFounded || group.isRemoved) continue
      const looked = this.#link.rest('GET', `groups/${group.id}`)
      await looked.catch(({ status }) => status === 404 && this.#save({ ...group, isRemoved: true }))
    }
  }
  /** Reads on from a cursor, or from the start where the relay no longer knows it. */
  #page(path, cursor) {
    const from = cursor ? `&since_cursor=${encodeURIComponent(cursor)}` : ''
    const again = error => (error.status === 410 ? this.#page(path) : Promise.reject(error))
    return this.#link.rest('GET', `${path}limit=100${from}`).catch(again)
  }
  async #stockUp() {
    const own = await this.#own()
    const { keypackages } = await this.#link.rest('GET', `keypackages?owner=${this.key}`)
    const usable = keypackages.filter(({ key_reference: ref }) => own.packages.some(([known]) => known === ref))
    for (let have = usable.length; have < STOCK; have += 1) {
      const { ref, secrets, content } = await mls.newKeyPackage(this.key, have === 0)
      own.packages = put(own.packages, [ref, secrets], PACKAGES_MAX)
      await set('own', own, this.#store)
      await this.#publish(this.#link.sign({ kind: 443, tags: [['cs', mls.SUITE], ['kpr', ref]], content }))
    }
  }
  async #claim(owner) {
    const claim = this.#link.rest('POST', 'keypackages/claim', { owner, ciphersuite: mls.SUITE })
    const { keypackages: [{ event }] } = await claim.catch(error => {
      throw error.status === 404 ? new Error('They have no KeyPackage here. Ask them to open this chat once.') : error
    })
    if (event.pubkey !== owner || !verifyEvent(event)) throw new Error('The relay gave a forged KeyPackage.')
    return event.content
  }
  async #readInbox() {
    for (let own = await this.#own(), more = true; more; await set('own', own, this.#store)) {
      const page = await this.#page('inbox?', own.cursor)
      for (const wrap of page.events.filter(({ kind, id }) => kind === 1059 && !own.wraps.includes(id))) {
        // Anybody may send anything to an inbox, so an event that is no Welcome is passed over.
        await this.#welcomed(wrap, new Map(own.packages)).catch(() => {})
        own.wraps = put(own.wraps, wrap.id, WRAPS_MAX)
      }
      own.cursor = page.next_cursor
      more = page.has_more
    }
  }
  /** Joins by a Welcome. Only the founder of a group may invite this person to it again. */
  async #welcomed(wrap, packages) {
    const { kind, pubkey: admin, content, tags } = unwrapEvent(wrap, this.#secret)
    const { h: id, name } = Object.fromEntries(tags)
    const before = await get(id, this.#store)
    if (kind !== 444 || !ID.test(id) || (before && before.admin !== admin)) return
    const state = await mls.join(content, packages)
    if (!state) return this.#on.failed(new Error('An invitation came to another browser of yours. Ask for a new one.'))
    const [made, { messages }] = [Date.now(), before ?? NEW]
    const group = { ...NEW, id, name: `${name}`.slice(0, NAME_MAX), admin, state, made, messages, isFounded: true }
    await this.#save(group)
    await this.#settle(group)
  }
  /** A group message is signed by a key that is used once, so its event does not tell its author. */
  #message(id, content) { return this.#link.sign({ kind: 445, content, tags: [['h', id]] }, generateSecretKey()) }
  #wrap(key, content, { id, name }) {
    const rumor = createRumor({ kind: 444, content, tags: [['h', id], ['name', name]] }, this.#secret)
    const [once, seal] = [generateSecretKey(), createSeal(rumor, this.#secret, key)]
    const sealed = encrypt(JSON.stringify(seal), getConversationKey(once, key))
    return this.#link.sign({ kind: 1059, content: sealed, tags: [['p', key], ['h', id]] }, once)
  }
  async #roster(id, op, key) {
    const { seq } = await this.#link.rest('GET', `groups/${id}`)
    const tags = [['h', id], ['seq', `${seq + 1}`], ['op', op], ['p', key]]
    return { event: this.#link.sign({ kind: 450, tags }) }
  }
}

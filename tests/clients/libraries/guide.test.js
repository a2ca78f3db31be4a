// The client of docs/clients.md by NDK: a member hears and reads a group, and a stranger is refused.

import './support/environment.js'

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { startRelay } from '../js/support/server.js'
import { Inbox, within } from '../js/support/wait.js'
import * as guide from './guide.js'
import { Person, founding, message } from './support/person.js'

const [admin, alice, bob, eve] = [new Person(), new Person(), new Person(), new Person()]
const group = 'guide-group'
const clients = []
let server

before(async () => {
  server = await startRelay({ admins: [admin.key] })
})
after(async () => {
  for (const ndk of clients) ndk.pool.relays.forEach(relay => relay.disconnect())
  await server?.stop()
})

async function open(person) {
  const ndk = await within(guide.connect(server.url, person.secretHex), 'a connection')
  clients.push(ndk)
  return ndk
}

test('members send, hear and catch up, and a stranger is told why not', async () => {
  const [boss, at, bt, et] = [await open(admin), await open(alice), await open(bob), await open(eve)]
  const since = Math.floor(Date.now() / 1000)
  await within(guide.publish(boss, server.url, founding(admin, group, [alice, bob])), 'OK')
  const heard = new Inbox()
  guide.follow(bt, group, event => heard.push(event), reason => heard.push(reason))
  const first = message(group)
  await within(guide.publish(at, server.url, first), 'OK')
  assert.equal((await heard.next('the message')).id, first.id)
  const missed = await within(guide.catchUp(bt, group, since), 'the messages')
  assert.deepEqual(missed.map(({ id }) => id), [first.id])
  await assert.rejects(within(guide.publish(et, server.url, message(group)), 'an answer'), /restricted: /)
  assert.deepEqual(await within(guide.catchUp(et, group, since), 'an answer'), [])
})

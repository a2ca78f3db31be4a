// The browser chat of examples/chat: three persons, one of them with two tabs, on one relay.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import * as mls from '../../examples/chat/src/mls.js'
import { Person, connectAs, publish, refused, stored } from '../clients/js/support/client.js'
import { startRelay } from '../clients/js/support/server.js'
import { finalizeEvent, getPublicKey, nip19, nip98 } from '../clients/js/support/tools.js'
import { Tab, serveChat } from './support/chat.js'
import { Chromium, barriers } from './support/chromium.js'

let chromium, relay, chat

before(async () => {
  relay = await startRelay({ verify: 'enforce' })
  chat = await serveChat()
  chromium = await Chromium.start()
})
after(async () => {
  await chromium?.stop()
  await chat?.stop()
  await relay?.stop()
})

const open = context => Tab.open(chromium, chat.url, context)

/** A person in a browser of their own. */
async function arrive(name) {
  const tab = await open()
  await tab.signIn(name, relay.url)
  const [npub, nsec] = [await tab.copied('Copy npub'), await tab.copied('Copy secret key')]
  return Object.assign(tab, { name, npub, nsec })
}

/** A client of nostr-tools with the key of a person of the chat. */
function person({ nsec }) {
  const made = new Person()
  made.secret = nip19.decode(nsec).data
  made.key = getPublicKey(made.secret)
  return made
}

async function everyoneReads(tabs, text) {
  for (const tab of tabs) await tab.reads(text)
}

describe('a group of three', () => {
  const group = 'Book club'
  let alice, second, bob, carol

  before(async () => {
    // One after the other, since all contexts of a Chromium share its clipboard.
    ;[alice, bob, carol] = [await arrive('Alice'), await arrive('Bob'), await arrive('Carol')]
  })

  test('the founder invites two, and all three read each other', async () => {
    await alice.makeGroup(group)
    assert.match(await alice.page.getByRole('main').innerText(), /You are alone here/)
    for (const invited of [bob, carol]) {
      await alice.invite(invited.npub)
      await invited.inGroup(group)
    }
    for (const tab of [alice, bob, carol]) {
      await tab.write(`${tab.name} is here`)
      await everyoneReads([alice, bob, carol], `${tab.name} is here`)
    }
    const texts = ['Alice is here', 'Bob is here', 'Carol is here']
    for (const tab of [alice, bob, carol]) {
      assert.deepEqual(await tab.texts(), texts)
      // Beside the name, which is the sender's choice, stands the key that MLS has verified.
      for (const by of [alice, bob, carol]) await tab.reads(`${by.name} ${by.npub.slice(0, 9)}`)
    }
  })

  test('a second tab of the founder has the history, and both tabs write', async () => {
    second = await open(alice.context)
    assert.equal(await second.page.getByRole('navigation').count(), 0, 'a new tab has no key')
    await second.signIn('Alice', relay.url, alice.nsec)
    await everyoneReads([second], 'Carol is here')
    await second.write('from the second tab')
    await everyoneReads([alice, second, bob, carol], 'from the second tab')
    await alice.write('from the first tab')
    await everyoneReads([alice, second, bob, carol], 'from the first tab')
    await bob.write('I see both')
    await everyoneReads([alice, second, bob, carol], 'I see both')
    assert.deepEqual(await second.texts(), await alice.texts())
  })

  test('the history is there after a reload, with what was said meanwhile', async () => {
    const before = await bob.texts()
    await bob.page.reload()
    await bob.reads('I see both')
    assert.deepEqual(await bob.texts(), before)
    await bob.page.close()
    await alice.write('while Bob is away')
    await everyoneReads([carol], 'while Bob is away')
    await carol.write('he will read this')
    await everyoneReads([alice, carol], 'he will read this')
    const { name, npub, nsec, context } = bob
    bob = Object.assign(await open(context), { name, npub, nsec })
    await bob.signIn(name, relay.url, nsec)
    await bob.reads('he will read this')
    assert.deepEqual(await bob.texts(), [...before, 'while Bob is away', 'he will read this'])
    await bob.write('I have read it')
    await everyoneReads([alice, second, bob, carol], 'I have read it')
  })

  test('a removed member is told, gets nothing more, and can write nothing', async () => {
    await alice.page.getByRole('button', { name: 'Remove Carol' }).click()
    await carol.page.getByRole('main').getByText('You were removed from this group').waitFor()
    await alice.page.getByRole('button', { name: 'Remove Carol' }).waitFor({ state: 'detached' })
    const [texts, frames] = [await carol.texts(), carol.frames.length]
    await alice.write('without Carol')
    await everyoneReads([alice, second, bob], 'without Carol')
    await bob.write('she is gone')
    await everyoneReads([alice, second, bob], 'she is gone')

    // A note that comes behind both messages shows that the relay would have sent them by now.
    const out = person(carol)
    const client = await connectAs(relay.url, out)
    const [, , message] = carol.frames.find(([verb, , event]) => verb === 'EVENT' && event.kind === 445)
    const { h } = Object.fromEntries(message.tags)
    assert.deepEqual(await stored(client, { kinds: [445], '#h': [h] }), [])
    assert.deepEqual(await stored(client, { kinds: [445, 450] }), [])
    await refused(publish(client, new Person().sign(445, { content: 'AAEAAg==', tags: [['h', h]] })), /^restricted: /)
    client.close()
    const url = `${relay.http}/api/v1/mls/messages?group=${h}`
    const authorization = await nip98.getToken(url, 'GET', event => finalizeEvent(event, out.secret), true)
    const answer = await fetch(url, { headers: { authorization } })
    assert.deepEqual((await answer.json()).events, [])

    assert.deepEqual(carol.frames.slice(frames), [], 'frames after the removal')
    assert.deepEqual(await carol.texts(), texts)
    await carol.page.reload()
    await carol.page.getByRole('main').getByText('You were removed from this group').waitFor()
    assert.deepEqual(await carol.texts(), texts, 'what was read before stays')
  })

  test('a removed member comes back by a new invitation', async () => {
    await alice.invite(carol.npub)
    await carol.page.getByLabel('Message', { exact: true }).waitFor()
    await alice.write('welcome back')
    await everyoneReads([alice, second, bob, carol], 'welcome back')
    const texts = await carol.texts()
    assert.ok(!texts.includes('without Carol'), 'MLS gives a new member no earlier message')
  })

  test('Chromium and axe-core find no fault', async () => {
    for (const tab of [alice, second, bob, carol]) {
      assert.deepEqual(await barriers(tab.page), [])
      assert.deepEqual(tab.faults, [])
    }
  })

  test('a member that is removed while away is told when it comes back', async () => {
    await carol.page.close()
    await alice.page.getByRole('button', { name: 'Remove Carol' }).click()
    await alice.page.getByRole('button', { name: 'Remove Carol' }).waitFor({ state: 'detached' })
    const { name, nsec, context } = carol
    carol = await open(context)
    await carol.signIn(name, relay.url, nsec)
    await carol.page.getByRole('main').getByText('You were removed from this group').waitFor()
    await carol.reads('welcome back')
  })
})

test('a commit of a member that is not the founder changes nothing for the others', async () => {
  const [founder, mallory, victim] = [new Person().key, new Person().key, new Person().key]
  const packages = [await mls.newKeyPackage(mallory), await mls.newKeyPackage(victim)]
  const alone = await mls.found(founder, 'group')
  const first = await mls.add(alone, packages[0].content, mallory)
  const byMallory = await mls.join(first.welcome, new Map([[packages[0].ref, packages[0].secrets]]))
  const second = await mls.add(first.state, packages[1].content, victim)
  const byVictim = await mls.join(second.welcome, new Map([[packages[1].ref, packages[1].secrets]]))
  const { state } = await mls.read(byMallory, second.commit, founder)

  const leaf = key => mls.members(state).find(member => member.key === key).leaf
  const { commit } = await mls.remove(state, leaf(victim))
  for (const reader of [second.state, byVictim]) {
    const result = await mls.read(reader, commit, founder)
    assert.equal(result.by, mallory)
    assert.ok(!result.isRemoved)
    assert.deepEqual(mls.members(result.state).map(({ key }) => key), [founder, mallory, victim])
  }
})

describe('errors say what to do', () => {
  test('a wrong key, a person without a KeyPackage, and a member', async () => {
    const newcomer = await open()
    await newcomer.page.getByLabel('Your name').fill('Dave')
    await newcomer.page.getByLabel('Your secret key').fill('nsec1nonsense')
    await newcomer.page.getByRole('button', { name: 'Open the chat' }).click()
    assert.match(await newcomer.alert(), /no nsec. It begins with nsec1/)
    assert.deepEqual(await barriers(newcomer.page), [])

    const [dave, erin] = [await arrive('Dave'), await arrive('Erin')]
    await dave.makeGroup('Two of us')
    await dave.invite('npub1nonsense')
    assert.match(await dave.alert(), /no npub. It begins with npub1/)
    await dave.invite(nip19.npubEncode(new Person().key))
    await dave.page.getByRole('alert').filter({ hasText: 'no KeyPackage here' }).waitFor()
    await dave.invite(erin.npub)
    await erin.inGroup('Two of us')
    await dave.invite(erin.npub)
    await dave.page.getByRole('alert').filter({ hasText: 'member already' }).waitFor()
  })

  test('a message waits while the relay is away, and goes out when it is back', async () => {
    const [frank, grace] = [await arrive('Frank'), await arrive('Grace')]
    await frank.makeGroup('Patience')
    await frank.invite(grace.npub)
    await grace.inGroup('Patience')
    await relay.restart(async () => {
      await frank.page.getByRole('status').filter({ hasText: 'The relay does not answer' }).waitFor()
      await frank.write('are you there?')
      await frank.page.getByLabel('Messages').getByText('waiting').waitFor()
    })
    await everyoneReads([frank, grace], 'are you there?')
    await frank.page.getByRole('status').waitFor({ state: 'detached' })
    assert.deepEqual(await frank.texts(), ['are you there?'])
  })
})

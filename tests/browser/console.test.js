// The console: logins, and all that it keeps from those who may not see it.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { Person, connectAs, publish } from '../clients/js/support/client.js'
import { startRelay } from '../clients/js/support/server.js'
import { nip19 } from '../clients/js/support/tools.js'
import { logIn, npub, paste, told, visit } from './support/console.js'
import { Chromium } from './support/chromium.js'

const operator = new Person()
let chromium, server

before(async () => {
  server = await startRelay({ admins: [operator.key] })
  chromium = await Chromium.start()
})
after(async () => {
  await chromium?.stop()
  await server?.stop()
})

/** Founds a group with `admin` as its group admin and `members`. */
async function founded(group, admin, members = []) {
  const relay = await connectAs(server.url, operator)
  const roster = (seq, op, people, more = []) => operator.sign(450, {
    tags: [['h', group], ['seq', `${seq}`], ['op', op], ...people.map(({ key }) => ['p', key]), ...more],
  })
  await publish(relay, roster(1, 'bootstrap', [admin], [['role', 'admin'], ['name', `Name of ${group}`]]))
  if (members.length > 0) await publish(relay, roster(2, 'add', members))
  relay.close()
}

test('a stranger is kept out, is told who gets in, and the field has forgotten the key', async () => {
  const { page } = await logIn(chromium, server, new Person())
  await told(page, /admin_pubkeys/)
  assert.equal(await page.getByRole('navigation').count(), 0)
  assert.equal(await page.getByLabel('Secret key').inputValue(), '')
  const wrong = { npub1abc: 'public key (npub)', nonsense: '64 hex digits', ['0'.repeat(64)]: 'zero' }
  for (const [text, words] of Object.entries(wrong)) {
    await paste(page, text)
    await told(page, words)
    assert.equal(await page.getByLabel('Secret key').inputValue(), '')
  }
})

test('at an address that is not the relay\'s own the login says where the console is', async () => {
  const elsewhere = await startRelay({ admins: [operator.key], server: { public_url: 'wss://relay.example.com' } })
  try {
    const { page } = await logIn(chromium, elsewhere, operator)
    await told(page, 'Open the console at https://relay.example.com/console.')
  } finally {
    await elsewhere.stop()
  }
})

test('a pasted key leaves the page in no request, in no frame and in no storage, and goes at the log-out', async () => {
  const context = await chromium.context()
  const sent = []
  context.on('request', request => {
    sent.push([request.url(), JSON.stringify(request.headers()), request.postData() ?? ''].join(' '))
  })
  context.on('page', page => page.on('websocket', socket => {
    socket.on('framesent', ({ payload }) => sent.push(`${payload}`))
  }))
  const { page, faults } = await logIn(chromium, server, operator, { context })
  await visit(page, 'Access')
  await page.getByLabel('Key to ban').fill(npub(new Person()))
  await page.getByRole('button', { name: 'Ban', exact: true }).first().click()
  await told(page, 'is banned')
  const secret = Buffer.from(operator.secret).toString('hex')
  const stored = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }))
  const traces = [...sent, stored, await page.content()]
  const proofs = sent.flatMap(text => [...text.matchAll(/Nostr ([A-Za-z0-9+/=]+)/g)].map(([, proof]) => atob(proof)))
  assert.ok(proofs.length >= 2, 'the login and the ban are signed')
  for (const form of [secret, nip19.nsecEncode(operator.secret)]) {
    for (const text of [...traces, ...proofs]) assert.ok(!text.includes(form), `the key is in ${text.slice(0, 60)}…`)
  }
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByLabel('Secret key').waitFor()
  await page.reload()
  await page.getByLabel('Secret key').waitFor()
  assert.deepEqual(faults, [])
})

test('an extension signs the login and each change', async () => {
  const context = await chromium.context()
  const kinds = []
  await context.exposeFunction('signHere', template => {
    kinds.push(template.kind)
    return operator.sign(template.kind, { content: template.content, tags: template.tags, at: template.created_at })
  })
  await context.addInitScript(key => {
    globalThis.nostr = { getPublicKey: async () => key, signEvent: template => globalThis.signHere(template) }
  }, operator.key)
  const { page, faults } = await chromium.open(`${server.http}/console`, { context })
  await page.getByRole('button', { name: 'Log in with an extension' }).click()
  await visit(page, 'Access')
  await page.getByLabel('Address to block').fill('198.51.100.7')
  await page.getByRole('button', { name: 'Block', exact: true }).click()
  await told(page, 'is blocked')
  assert.deepEqual(kinds, [27_235, 27_235])
  assert.deepEqual(faults, [])
})

test('a group admin sees the own groups alone, and changes them', async () => {
  const [alice, carol, other] = [new Person(), new Person(), new Person()]
  const [own, foreign] = [`own-${alice.key.slice(0, 8)}`, `foreign-${alice.key.slice(0, 8)}`]
  await founded(own, alice)
  await founded(foreign, other, [alice])
  const { page } = await logIn(chromium, server, alice)
  const links = await page.getByRole('navigation').getByRole('link').allTextContents()
  assert.deepEqual(links, ['Groups', 'KeyPackages', 'Inspector'])
  await page.getByRole('link', { name: `Name of ${own}` }).waitFor()
  assert.equal(await page.getByText(foreign).count(), 0, 'a group of which the key is a plain member')

  await page.goto(`${server.http}/console#/groups/${foreign}`)
  await page.getByText('No such group').waitFor()
  await page.goto(`${server.http}/console#/access`)
  await page.getByRole('heading', { level: 1, name: 'Groups', exact: true }).waitFor()

  await page.getByRole('link', { name: `Name of ${own}` }).click()
  await page.getByRole('button', { name: 'Change members' }).click()
  await page.getByLabel('Keys').fill(npub(carol))
  await page.getByRole('button', { name: 'Sign and send' }).click()
  await told(page, 'the group has 2 members')
  await page.getByRole('button', { name: `Remove ${npub(alice).slice(0, 12)}` }).click()
  await told(page, 'You would be no group admin afterwards')
  assert.ok(await page.getByRole('button', { name: 'Sign and send' }).isDisabled())
})

test('a token that has expired is renewed by the key, and a key that may enter no more is logged out', async () => {
  const { page } = await logIn(chromium, server, operator)
  let logins = 0
  page.on('request', request => {
    if (request.url().endsWith('/console/api/login')) logins += 1
  })
  // The relay's clock cannot be moved on from here, so its answer to an old token is given in its place.
  const expired = { status: 401, contentType: 'application/problem+json', body: '{"detail":"over","code":"expired"}' }
  await page.route('**/console/api/configuration', route => route.fulfill(expired), { times: 1 })
  await visit(page, 'Configuration')
  await page.getByRole('cell', { name: 'public_url', exact: false }).first().waitFor()
  assert.equal(logins, 1)

  const refused = { status: 403, contentType: 'application/problem+json', body: '{"detail":"restricted: no admin"}' }
  await page.route('**/console/api/access', route => route.fulfill(expired))
  await page.route('**/console/api/login', route => route.fulfill(refused))
  await page.getByRole('link', { name: 'Access' }).click()
  await told(page, 'a new one was not made: restricted: no admin')
  await page.getByLabel('Secret key').waitFor()
})

test('a relay that dies is said to be away, and the page goes on when it is back, without a reload', async () => {
  const { page } = await logIn(chromium, server, operator)
  await visit(page, 'Now')
  await page.evaluate(() => { globalThis.isSamePage = true })
  await server.stopped()
  await page.getByText('The relay does not answer.', { exact: false }).first().waitFor()
  await server.started()
  await page.getByText('The relay does not answer.', { exact: false }).first().waitFor({ state: 'hidden' })
  await page.getByText('Ready', { exact: true }).waitFor()
  await visit(page, 'Configuration')
  await page.getByRole('cell', { name: 'public_url', exact: false }).first().waitFor()
  assert.equal(await page.evaluate(() => globalThis.isSamePage), true)
})

// The operator's work in the console, seen by live clients.

import assert from 'node:assert/strict'
import { on, once } from 'node:events'
import { after, before, test } from 'node:test'

import { Person, connect, connectAs, publish, refused, subscribed } from '../clients/js/support/client.js'
import { startRelay } from '../clients/js/support/server.js'
import { WebSocket } from '../clients/js/support/tools.js'
import { within } from '../clients/js/support/wait.js'
import { logIn, npub, section, told, visit } from './support/console.js'
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

function message(group, content) {
  return new Person().sign(445, { content, tags: [['h', group]] })
}

test('an operator founds a group by a form, and a live client sees its joining and its removal at once', async () => {
  const [alice, bob] = [new Person(), new Person()]
  const group = `crew-${alice.key.slice(0, 8)}`
  const [alices, bobs] = await Promise.all([alice, bob].map(person => connectAs(server.url, person)))
  const heard = await subscribed(bobs, { kinds: [445, 450], '#h': [group] })

  const { page, faults } = await logIn(chromium, server, operator)
  await visit(page, 'Groups')
  await page.getByText('No groups yet').waitFor()
  await page.getByRole('link', { name: 'Found a group' }).click()
  await page.getByLabel('Id').fill(group)
  await page.getByLabel('Name').fill('Night crew')
  await page.getByLabel('Group admins').fill(npub(alice))
  assert.match(await page.locator('.preview').innerText(), /joins as group admin[^]*1 member, 1 of them an admin/)
  await page.getByRole('button', { name: 'Sign and found' }).click()
  await told(page, 'The group is founded')
  await page.getByRole('link', { name: 'Open the group' }).click()
  await page.getByRole('heading', { level: 1, name: 'Night crew' }).waitFor()
  await publish(alices, message(group, 'before'))
  await refused(publish(bobs, message(group, 'let me in')), /^restricted: /)
  assert.deepEqual(heard.live.rest, [])

  await page.getByRole('button', { name: 'Change members' }).click()
  await page.getByLabel('Keys').fill(bob.key)
  assert.match(await page.locator('.preview').innerText(), /joins as member[^]*2 members, 1 of them an admin/)
  await page.getByRole('button', { name: 'Sign and send' }).click()
  await told(page, 'the group has 2 members')
  const added = await heard.live.next('the roster that adds bob')
  assert.deepEqual([added.kind, added.pubkey], [450, operator.key])
  await publish(bobs, message(group, 'I am in'))
  assert.equal((await heard.live.next('his own message')).content, 'I am in')

  await page.getByRole('button', { name: `Remove ${npub(bob).slice(0, 12)}` }).click()
  assert.match(await page.locator('.preview').innerText(), /leaves, and gets no further message/)
  await page.getByRole('button', { name: 'Sign and send' }).click()
  await told(page, 'the group has 1 member.')
  await publish(alices, message(group, 'without bob'))
  await refused(publish(bobs, message(group, 'still here?')), /^restricted: /)
  assert.deepEqual(heard.live.rest.filter(({ kind }) => kind === 445), [])

  const history = await section(page, 'Roster history').getByRole('listitem').allInnerTexts()
  assert.deepEqual(history.map(text => /removed|added|founded/.exec(text)?.[0]), ['removed', 'added', 'founded'])
  assert.deepEqual(faults, [])
})

test('a stale form is refused in words, and the group is shown as it is', async () => {
  const [alice, bob, carol] = [new Person(), new Person(), new Person()]
  const group = `stale-${alice.key.slice(0, 8)}`
  const boss = await connectAs(server.url, operator)
  const roster = (seq, op, { key }) =>
    operator.sign(450, { tags: [['h', group], ['seq', `${seq}`], ['op', op], ['p', key]] })
  await publish(boss, roster(1, 'bootstrap', alice))
  const { page } = await logIn(chromium, server, operator)
  await page.goto(`${server.http}/console#/groups/${group}`)
  await page.getByRole('button', { name: 'Change members' }).click()
  await page.getByLabel('Keys').fill(npub(bob))
  await publish(boss, roster(2, 'add', carol))
  await page.getByRole('button', { name: 'Sign and send' }).click()
  await told(page, 'Somebody else changed the group in between')
  await section(page, 'Members').getByTitle(npub(carol)).first().waitFor()
  await page.getByRole('button', { name: 'Sign and send' }).click()
  await told(page, 'the group has 3 members')
})

test('charts move, and tell their newest values as text', async () => {
  const { page, faults } = await logIn(chromium, server, operator)
  await visit(page, 'Now')
  const chart = page.getByRole('figure', { name: 'Connections', exact: true })
  await chart.locator('canvas').waitFor()
  const picture = () => chart.locator('canvas').evaluate(canvas => canvas.toDataURL())
  const cell = chart.getByRole('row', { name: 'Connections' }).getByRole('cell').first()
  const newest = async () => Number(await cell.innerText())
  const [before, count] = [await picture(), await newest()]
  const opened = await Promise.all(Array.from({ length: 7 }, () => connect(server.url)))
  await within(until(async () => (await newest()) >= count + 7), 'the new connections in the chart')
  assert.notEqual(await picture(), before)
  for (const relay of opened) relay.close()
  await section(page, 'Instances').getByText('ready', { exact: true }).waitFor()
  assert.deepEqual(faults, [])
})

async function until(holds) {
  while (!(await holds())) await new Promise(resolve => setTimeout(resolve, 250))
}

test('the inspector tells which rule refuses an event and which one hides it', async () => {
  const { page, faults } = await logIn(chromium, server, operator)
  await visit(page, 'Inspector')
  const inspect = page.getByRole('button', { name: 'Inspect', exact: true })
  await page.getByLabel('Event').fill('{"kind":1}')
  await inspect.click()
  await page.getByText('no signed event').waitFor()
  await page.getByLabel('Event').fill(JSON.stringify(message('nowhere', 'hello')))
  await page.getByLabel('Reader').fill(npub(new Person()))
  await inspect.click()
  const verdict = section(page, 'Publishing')
  await verdict.getByText('The relay would refuse this event.').waitFor()
  assert.match(await verdict.innerText(), /restricted: [^]*Groups 3/)
  await page.getByLabel('Event').fill(JSON.stringify(operator.sign(1, { content: 'hello' })))
  await inspect.click()
  await verdict.getByText('The relay would accept this event from this reader.').waitFor()
  await section(page, 'Reading').getByText('The relay shows this event to this reader.').waitFor()
  assert.deepEqual(faults, [])
})

/** Opens a connection with the key of `person`: the relay's answer to AUTH, and the end of the connection. */
async function authenticate(person) {
  const socket = new WebSocket(server.url)
  const frames = on(socket, 'message')
  const next = async () => JSON.parse((await within(frames.next(), 'a frame')).value[0])
  const [, challenge] = await next()
  const tags = [['relay', server.url], ['challenge', challenge]]
  socket.send(JSON.stringify(['AUTH', person.sign(22_242, { tags })]))
  return { answer: await next(), closed: once(socket, 'close') }
}

test('a banned key loses its connection at once, the change is listed, and the ban is lifted', async () => {
  const eve = new Person()
  const { answer, closed } = await authenticate(eve)
  assert.equal(answer[2], true)

  const { page, faults } = await logIn(chromium, server, operator)
  await visit(page, 'Access')
  const bans = section(page, 'Banned keys')
  await bans.getByLabel('Key to ban').fill('nonsense')
  await bans.getByRole('button', { name: 'Ban', exact: true }).click()
  await page.getByText('No public key.').waitFor()
  await bans.getByLabel('Key to ban').fill(npub(eve))
  await bans.getByLabel('Reason').fill('noise at night')
  await bans.getByRole('button', { name: 'Ban', exact: true }).click()
  await told(page, 'The key is banned')
  assert.equal((await within(closed, 'the end of the connection'))[0], 1008)
  await section(page, 'Changes').getByText('noise at night').waitFor()
  assert.match((await authenticate(eve)).answer[3], /^restricted: .*banned/)

  await bans.getByRole('button', { name: `Lift the ban ${npub(eve).slice(0, 8)}`, exact: false }).click()
  await told(page, 'The ban is lifted')
  await bans.getByText('No key is banned').waitFor()
  assert.equal((await authenticate(eve)).answer[2], true)
  assert.deepEqual(faults, [])
})

test('KeyPackages: a low stock is marked, a fault is told, and the owner is asked for more', async () => {
  const owner = new Person()
  const owners = await connectAs(server.url, owner)
  const heard = await subscribed(owners, { kinds: [447], '#p': [owner.key] })
  await publish(owners, owner.keyPackage())
  const { page, faults } = await logIn(chromium, server, operator)
  await visit(page, 'KeyPackages')
  await page.getByLabel('Owner').fill(npub(owner))
  await page.getByRole('button', { name: 'Search' }).click()
  await page.getByText('low: under 3').waitFor()
  await section(page, 'Failed verification').getByTitle(npub(owner)).waitFor()
  await page.getByRole('button', { name: /^Ask for more: / }).click()
  await told(page, 'is asked for KeyPackages')
  assert.equal((await heard.live.next('the request')).pubkey, operator.key)
  assert.deepEqual(faults, [])
})

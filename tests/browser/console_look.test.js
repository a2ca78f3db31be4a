// Every page of the console in two sizes and both themes: no barrier, nothing wider than the window, small and fast.
//
// With SCREENSHOTS=DIRECTORY it writes a picture of each one there.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Person, connectAs, publish } from '../clients/js/support/client.js'
import { startRelay } from '../clients/js/support/server.js'
import { PLACES, logIn, visit } from './support/console.js'
import { Chromium, barriers } from './support/chromium.js'

/** Most compressed bytes of the page with all of its files. */
const WEIGHT_BYTES_MAX = 200_000
/** Longest time to the first paint over loopback, in milliseconds. */
const FIRST_PAINT_MS_MAX = 1_000
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } }
const GROUP = 'harbour-watch'

const [operator, alice, bob] = [new Person(), new Person(), new Person()]
let chromium, server

before(async () => {
  server = await startRelay({ admins: [operator.key], information: { name: 'Harbour office' } })
  chromium = await Chromium.start()
  const relay = await connectAs(server.url, operator)
  const roster = (seq, op, people, more = []) => operator.sign(450, {
    tags: [['h', GROUP], ['seq', `${seq}`], ['op', op], ...people.map(({ key }) => ['p', key]), ...more],
  })
  await publish(relay, roster(1, 'bootstrap', [alice], [['role', 'admin'], ['name', 'Harbour watch']]))
  await publish(relay, roster(2, 'add', [bob]))
  await publish(relay, roster(3, 'promote', [bob]))
  relay.close()
  const owner = await connectAs(server.url, bob)
  await publish(owner, bob.keyPackage())
  owner.close()
})
after(async () => {
  await chromium?.stop()
  await server?.stop()
})

async function look(page, name) {
  assert.deepEqual(await barriers(page), [], name)
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - globalThis.innerWidth)
  assert.ok(beyond <= 0, `${name} is ${beyond} px wider than the window`)
  if (process.env.SCREENSHOTS) {
    await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), fullPage: true })
  }
}

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of ['light', 'dark']) {
    test(`each page on a ${size}, ${colorScheme}`, async () => {
      const options = { viewport, colorScheme }
      const named = title => `${title.toLowerCase().replace(' ', '-')}-${size}-${colorScheme}`
      const home = await chromium.open(server.http, { options })
      await look(home.page, named('Home'))
      const outside = await chromium.open(`${server.http}/console`, { options })
      await outside.page.getByLabel('Secret key').waitFor()
      await look(outside.page, named('Login'))

      const { page, faults } = await logIn(chromium, server, operator, { options })
      for (const title of PLACES) {
        await visit(page, title)
        await page.locator('.loading').first().waitFor({ state: 'hidden' })
        if (title === 'Now') await page.locator('canvas').first().waitFor()
        await look(page, named(title))
      }
      await page.goto(`${server.http}/console#/found`)
      await page.getByLabel('Group admins').fill(`${alice.key}\nnonsense`)
      await look(page, named('Found'))
      await page.goto(`${server.http}/console#/groups/${GROUP}`)
      await page.getByRole('button', { name: /^Remove / }).first().click()
      await page.locator('.preview').waitFor()
      await look(page, named('Group'))
      assert.deepEqual([...home.faults, ...outside.faults, ...faults], [])
    })
  }
}

test('the whole page is under 200 KB compressed, comes from the relay alone, and paints within a second', async () => {
  const context = await chromium.context()
  const page = await context.newPage()
  const answers = []
  page.on('response', response => answers.push(response))
  await page.goto(`${server.http}/console`)
  await page.getByLabel('Secret key').waitFor()
  let weight = 0
  for (const response of answers) {
    assert.ok(response.url().startsWith(server.http), response.url())
    weight += (await response.request().sizes()).responseBodySize
  }
  assert.ok(answers.length >= 3 && weight > 0)
  assert.ok(weight < WEIGHT_BYTES_MAX, `${weight} bytes`)
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime)
  assert.ok(paint < FIRST_PAINT_MS_MAX, `first paint after ${paint} ms`)
  console.log(`${weight} bytes compressed, first paint after ${Math.round(paint)} ms`)
})

test('the console is used by the keyboard alone', async () => {
  const { page } = await chromium.open(`${server.http}/console`)
  await page.getByLabel('Secret key').focus()
  await page.keyboard.type(Buffer.from(operator.secret).toString('hex'))
  await page.keyboard.press('Enter')
  await page.getByRole('navigation').waitFor()
  await page.reload()
  await page.getByLabel('Secret key').focus()
  await page.keyboard.type(Buffer.from(operator.secret).toString('hex'))
  await page.keyboard.press('Enter')
  await page.getByRole('navigation').waitFor()
  const focused = () => page.evaluate(() => document.activeElement?.textContent ?? '')
  for (let presses = 0; presses < 20 && (await focused()) !== 'Groups'; presses += 1) await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { level: 1, name: 'Groups', exact: true }).waitFor()
  const heading = page.getByRole('heading', { level: 1 })
  assert.ok(await heading.evaluate(it => it === document.activeElement), 'the heading of the new page has the focus')
})

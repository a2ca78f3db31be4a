// The page at the relay's root.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { startRelay } from '../clients/js/support/server.js'
import { Chromium, barriers } from './support/chromium.js'

let chromium, server

before(async () => {
  server = await startRelay({ information: { name: 'Harbour <office>' } })
  chromium = await Chromium.start()
})
after(async () => {
  await chromium?.stop()
  await server?.stop()
})

test('the home page opens, tells the relay\'s name and address, and Chromium finds no fault in it', async () => {
  const { page, faults } = await chromium.open(server.http)
  assert.equal(await page.title(), 'Harbour <office>')
  assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), 'Harbour <office>')
  assert.ok((await page.locator('body').innerText()).includes(server.url), 'the page shows the relay\'s address')
  assert.deepEqual(await barriers(page), [])
  assert.deepEqual(faults, [])
})

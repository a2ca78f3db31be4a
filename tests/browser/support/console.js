// Steps of a person in the console.

import { nip19 } from '../../clients/js/support/tools.js'

/** The pages of an operator, by their headings. */
export const PLACES = ['Now', 'Groups', 'KeyPackages', 'Access', 'Inspector', 'Configuration']

export function npub(person) {
  return nip19.npubEncode(person.key)
}

/**
 * Opens the console and pastes the secret key of `person`.
 *
 * @returns {Promise<{page: import('playwright-core').Page, faults: string[]}>} The page once the relay has answered.
 */
export async function logIn(chromium, server, person, settings) {
  const opened = await chromium.open(`${server.http}/console`, settings)
  await paste(opened.page, nip19.nsecEncode(person.secret))
  await opened.page.locator('nav, .notice.bad').first().waitFor()
  return opened
}

export async function paste(page, text) {
  await page.getByLabel('Secret key').fill(text)
  await page.getByRole('button', { name: 'Log in with the key' }).click()
}

/** Opens a page by the navigation, and waits for its heading. */
export async function visit(page, title) {
  await page.getByRole('navigation').getByRole('link', { name: title, exact: true }).click()
  await page.getByRole('heading', { level: 1, name: title, exact: true }).waitFor()
}

/** The section with this heading. */
export function section(page, title) {
  return page.getByRole('region', { name: title, exact: true })
}

/** Waits for an answer of the relay that holds `words`. */
export async function told(page, words) {
  await page.locator('.notice', { hasText: words }).first().waitFor()
}

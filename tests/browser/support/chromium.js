// Chromium of this machine, without a window, and the faults that its pages tell.

import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'

import axe from 'axe-core'
import { chromium } from 'playwright-core'

import { WAIT_MS } from '../../clients/js/support/wait.js'

/** The names under which systems install Chromium. */
const PROGRAMS = ['chromium', 'chromium-browser', 'google-chrome']
/** Impacts of axe-core's findings that fail a test. */
const SERIOUS = new Set(['serious', 'critical'])

/** A running Chromium. Each of its contexts is a person's own: pages of two contexts share no storage. */
export class Chromium {
  #browser

  constructor(browser) {
    this.#browser = browser
  }

  /** Starts the program that CHROMIUM_BIN names, or the one of the path. */
  static async start() {
    const executablePath = process.env.CHROMIUM_BIN ?? (await installed())
    // Chromium's sandbox does not run as root, and these tests open pages of this repository alone.
    const chromiumSandbox = process.getuid?.() !== 0
    return new Chromium(await chromium.launch({ executablePath, chromiumSandbox }))
  }

  /**
   * Makes a context with storage of its own.
   *
   * @param {import('playwright-core').BrowserContextOptions} [options] As `viewport` and `colorScheme`.
   */
  async context(options = {}) {
    const context = await this.#browser.newContext(options)
    context.setDefaultTimeout(WAIT_MS)
    return context
  }

  /**
   * Opens a page in a context of its own, or in `context`.
   *
   * @param {string} url
   * @param {object} [settings]
   * @param {import('playwright-core').BrowserContext} [settings.context]
   * @param {import('playwright-core').BrowserContextOptions} [settings.options] Those of a new context.
   * @param {(page: import('playwright-core').Page) => void} [settings.onpage] Called before the page loads anything.
   * @returns {Promise<{page: import('playwright-core').Page, faults: string[]}>} `faults` grows with each error on
   * the console, each exception that no code catches, and each request that fails.
   */
  async open(url, { context, options, onpage } = {}) {
    const page = await (context ?? (await this.context(options))).newPage()
    onpage?.(page)
    const faults = []
    page.on('console', message => {
      if (message.type() === 'error') faults.push(`console: ${message.text()} (${message.location().url})`)
    })
    page.on('pageerror', error => faults.push(`exception: ${error.message}`))
    page.on('requestfailed', request => faults.push(`request: ${request.url()}: ${request.failure()?.errorText}`))
    await page.goto(url)
    return { page, faults }
  }

  /** Ends Chromium and all of its contexts. */
  async stop() {
    await this.#browser.close()
  }
}

/** The serious findings of axe-core about a page, one line each. */
export async function barriers(page) {
  // The page's own policy may forbid scripts; code that is evaluated here is not subject to it.
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => globalThis.axe.run())
  const serious = violations.filter(({ impact }) => SERIOUS.has(impact))
  return serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' | ')}`)
}

async function installed() {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    for (const program of PROGRAMS) {
      const path = join(directory, program)
      const isThere = await access(path, constants.X_OK).then(() => true, () => false)
      if (isThere) return path
    }
  }
  throw new Error('there is no Chromium: install Debian\'s package chromium, or set CHROMIUM_BIN')
}

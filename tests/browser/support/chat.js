// The browser chat of examples/chat as a person uses it: its server, and the page of one tab.

import { spawn } from 'node:child_process'
import { once } from 'node:events'

import { freePort } from '../../clients/js/support/server.js'
import { within } from '../../clients/js/support/wait.js'

const DIRECTORY = new URL('../../../examples/chat/', import.meta.url)

/** Starts the server of the chat's files by the command that its README gives. */
export async function serveChat() {
  const port = await freePort()
  const environment = { ...process.env, PORT: `${port}` }
  // npm starts a shell and that starts esbuild, so the three have a group of processes of their own.
  const server = spawn('npm', ['start'], { cwd: DIRECTORY, env: environment, detached: true })
  const ended = once(server, 'exit')
  const stop = async () => {
    process.kill(-server.pid, 'SIGTERM')
    await within(ended, 'the end of the chat\'s server')
  }
  let said = ''
  const listens = new Promise((resolve, reject) => {
    const read = text => {
      said += text
      if (said.includes(`http://127.0.0.1:${port}/`)) resolve()
    }
    server.stdout.on('data', read)
    server.stderr.on('data', read)
    ended.then(() => reject(new Error(`the chat's server ended: ${said}`)))
  })
  try {
    await within(listens, 'the chat\'s server')
  } catch (error) {
    await stop().catch(() => {})
    throw error
  }
  return { url: `http://127.0.0.1:${port}`, stop }
}

/** One tab of a person. */
export class Tab {
  /** Frames that the relay has sent to this tab, decoded. */
  frames = []

  static async open(chromium, url, context) {
    const tab = new Tab()
    tab.context = context ?? (await chromium.context({ permissions: ['clipboard-read', 'clipboard-write'] }))
    const { page, faults } = await chromium.open(url, {
      context: tab.context,
      onpage: page => page.on('websocket', socket => {
        socket.on('framereceived', ({ payload }) => tab.frames.push(JSON.parse(payload)))
      }),
    })
    return Object.assign(tab, { page, faults })
  }

  /** Signs in with a new key, or with `nsec`. */
  async signIn(name, relay, nsec) {
    await this.page.getByLabel('Your name').fill(name)
    if (nsec) await this.page.getByLabel('Your secret key').fill(nsec)
    else await this.page.getByRole('button', { name: 'Make a new key' }).click()
    await this.page.getByLabel('Relay').fill(relay)
    await this.page.getByRole('button', { name: 'Open the chat' }).click()
    // The bar with the state goes when the relay has accepted the key.
    await this.page.getByRole('navigation').waitFor()
    await this.page.getByRole('status').waitFor({ state: 'detached' })
  }

  /** Gives what a button copies: `Copy npub` or `Copy secret key`. */
  async copied(button) {
    await this.page.getByRole('button', { name: button }).click()
    return this.page.evaluate(() => navigator.clipboard.readText())
  }

  async makeGroup(name) {
    await this.page.getByLabel('Name of the new group').fill(name)
    await this.page.getByRole('button', { name: 'Make', exact: true }).click()
    await this.inGroup(name)
  }

  async inGroup(name) {
    await this.page.getByRole('heading', { name }).waitFor()
  }

  async invite(npub) {
    await this.page.getByLabel('npub of the person to invite').fill(npub)
    await this.page.getByRole('button', { name: 'Invite' }).click()
  }

  async write(text) {
    await this.page.getByLabel('Message', { exact: true }).fill(text)
    await this.page.getByRole('button', { name: 'Send' }).click()
  }

  /** Waits until this tab shows a message in full, which the relay has stored. */
  async reads(text) {
    const shown = this.page.getByLabel('Messages').getByRole('listitem').filter({ hasText: text })
    await shown.filter({ hasNotText: 'waiting' }).waitFor()
  }

  /** The texts of all messages, in their order. */
  async texts() {
    const lines = await this.page.getByLabel('Messages').locator('p').allInnerTexts()
    return lines.map(line => line.split('\n').at(-1))
  }

  async alert() {
    return this.page.getByRole('alert').innerText()
  }
}

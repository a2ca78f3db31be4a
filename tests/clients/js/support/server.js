// Relay process of one suite, on a free port and in a temporary directory.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { access, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

import { within } from './wait.js'

const LOG_LINES_MAX = 200
/** The last log lines that a failed start or stop shows. */
const LOG_LINES_SHOWN = 40

/**
 * Starts the binary that RNOSTR_BIN names, on loopback.
 *
 * @param {object} settings
 * @param {boolean} [settings.auth] `[auth] enabled`: the relay answers nothing before AUTH.
 * @param {number} [settings.graceMs] `[auth] auth_grace_ms`.
 * @param {string[]} [settings.admins] `admin_pubkeys`, hex.
 * @param {string[]} [settings.residents] `pubkey_whitelist`, hex.
 * @param {boolean} [settings.unlimited] No bound on the rate of events, for suites that send many from one address.
 * @param {object} [settings.server] Further keys of `[server]`.
 * @param {object} [settings.information] Keys of `[information]`.
 * @param {string} [settings.verify] `verify_keypackages`.
 */
export async function startRelay(settings = {}) {
  const binary = await relayBinary()
  const directory = await mkdtemp(join(tmpdir(), 'rnostr-js-'))
  const config = join(directory, 'rnostr.toml')
  await writeFile(config, configText(settings, await freePort(), join(directory, 'data')))
  let running
  try {
    running = await startProcess(binary, directory, config)
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    throw error
  }
  const { url } = running
  return {
    url,
    http: url.replace('ws://', 'http://'),
    /** The relay's last log lines. */
    log: () => tail(running.log),
    /**
     * Ends the process as a service manager does, expects exit code 0, and starts it again at the same port, once
     * `meanwhile` is done.
     */
    async restart(meanwhile = async () => {}) {
      await running.end()
      await meanwhile()
      running = await startProcess(binary, directory, config)
    },
    /** Ends the process as a service manager does, and leaves its data and its port for `started`. */
    stopped: () => running.end(),
    /** Starts the process again after `stopped`. */
    async started() {
      running = await startProcess(binary, directory, config)
    },
    /** Ends the process as a service manager does, and expects exit code 0. */
    async stop() {
      try {
        await running.end()
      } finally {
        await rm(directory, { recursive: true, force: true })
      }
    },
  }
}

async function startProcess(binary, directory, config) {
  // The relay gets no variables of this environment, because RUST_LOG or RNOSTR_… would change its behaviour.
  const relay = spawn(binary, ['relay', '-c', config], { cwd: directory, env: {}, stdio: ['ignore', 'pipe', 'pipe'] })
  const log = []
  const ended = once(relay, 'exit').then(([code, signal]) => ({ code, signal }))
  try {
    const url = await within(listening(relay, log, ended), 'the relay listens')
    return { url, log, end: () => end(relay, log, ended) }
  } catch (error) {
    relay.kill('SIGKILL')
    throw new Error(`${error.message}\n${tail(log)}`)
  }
}

async function end(relay, log, ended) {
  relay.kill('SIGTERM')
  try {
    const end = await within(ended, 'the relay ends after SIGTERM')
    assert.deepEqual(end, { code: 0, signal: null }, tail(log))
  } finally {
    relay.kill('SIGKILL')
  }
}

/** The ports that tests use. The system takes none of them for a client, so a relay finds its port again. */
const [PORT_MIN, PORT_MAX] = [20_000, 32_000]
const PORT_TRIES_MAX = 100

/** A port of this machine on which nothing listens. */
export async function freePort() {
  for (let tries = 0; tries < PORT_TRIES_MAX; tries += 1) {
    const port = randomInt(PORT_MIN, PORT_MAX)
    const probe = createServer()
    const isFree = await new Promise(resolve => {
      probe.once('error', () => resolve(false))
      probe.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    probe.close()
    await once(probe, 'close')
    return port
  }
  throw new Error('no port is free')
}

async function relayBinary() {
  const named = process.env.RNOSTR_BIN
  assert.ok(named, 'set RNOSTR_BIN to the relay\'s binary, as RNOSTR_BIN=$PWD/target/debug/rnostr')
  // npm runs scripts in the package's directory, but a relative path is meant from the caller's directory.
  const path = resolve(process.env.INIT_CWD ?? '.', named)
  await access(path)
  return path
}

function configText(settings, port, data) {
  const { auth = false, graceMs, admins = [], residents = [] } = settings
  const { unlimited = false, server = {}, information = {}, verify = 'log' } = settings
  const lines = table => Object.entries(table).map(([key, value]) => `${key} = ${JSON.stringify(value)}`).join('\n')
  return `
[server]
host = "127.0.0.1"
port = ${port}
${lines(server)}

[information]
${lines(information)}

[data]
path = ${JSON.stringify(data)}

[auth]
enabled = ${auth}
${graceMs === undefined ? '' : `auth_grace_ms = ${graceMs}`}
pubkey_whitelist = ${JSON.stringify(residents)}

[extensions.mls_gateway]
admin_pubkeys = ${JSON.stringify(admins)}
verify_keypackages = ${JSON.stringify(verify)}
${unlimited ? '[extensions.mls_gateway.rate_limits]\nmax_events_per_minute = 0\nmax_group_messages_per_minute = 0' : ''}
`
}

/** Waits for the relay's log line with its address, and resolves to the URL. */
function listening(relay, log, ended) {
  return new Promise((found, failed) => {
    for (const stream of [relay.stdout, relay.stderr]) {
      createInterface({ input: stream }).on('line', line => {
        log.push(line)
        if (log.length > LOG_LINES_MAX) log.shift()
        const url = /listening on (ws:\/\/127\.0\.0\.1:\d+)/.exec(line)?.[1]
        if (url) found(url)
      })
    }
    relay.once('error', failed)
    ended.then(({ code, signal }) => failed(new Error(`the relay ended at once (${signal ?? code})`)))
  })
}

function tail(log) {
  return ['--- end of the relay\'s log', ...log.slice(-LOG_LINES_SHOWN)].join('\n')
}

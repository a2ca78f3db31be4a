// Relay process of one suite, with a port that the system chooses and a temporary directory.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, rm, writeFile } from 'node:fs/promises'
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
 * @param {string[]} [settings.admins] `admin_pubkeys`, hex.
 * @param {string[]} [settings.residents] `pubkey_whitelist`, hex.
 * @param {string} [settings.verify] `verify_keypackages`.
 */
export async function startRelay(settings = {}) {
  const binary = await relayBinary()
  const directory = await mkdtemp(join(tmpdir(), 'rnostr-js-'))
  const config = join(directory, 'rnostr.toml')
  await writeFile(config, configText(settings, join(directory, 'data')))
  // The relay gets no variables of this environment, because RUST_LOG or RNOSTR_… would change its behaviour.
  const relay = spawn(binary, ['relay', '-c', config], { cwd: directory, env: {}, stdio: ['ignore', 'pipe', 'pipe'] })
  const log = []
  const ended = once(relay, 'exit').then(([code, signal]) => ({ code, signal }))
  let url
  try {
    url = await within(listening(relay, log, ended), 'the relay listens')
  } catch (error) {
    relay.kill('SIGKILL')
    await rm(directory, { recursive: true, force: true })
    throw new Error(`${error.message}\n${tail(log)}`)
  }
  return {
    url,
    http: url.replace('ws://', 'http://'),
    /** Ends the process as a service manager does, and expects exit code 0. */
    async stop() {
      process.kill(relay.pid, 'SIGTERM')
      try {
        const end = await within(ended, 'the relay ends after SIGTERM')
        assert.deepEqual(end, { code: 0, signal: null }, tail(log))
      } finally {
        relay.kill('SIGKILL')
        await rm(directory, { recursive: true, force: true })
      }
    },
  }
}

async function relayBinary() {
  const named = process.env.RNOSTR_BIN
  assert.ok(named, 'set RNOSTR_BIN to the relay\'s binary, as RNOSTR_BIN=$PWD/target/debug/rnostr')
  // npm runs scripts in the package's directory, but a relative path is meant from the caller's directory.
  const path = resolve(process.env.INIT_CWD ?? '.', named)
  await access(path)
  return path
}

function configText({ auth = false, admins = [], residents = [], verify = 'log' }, data) {
  return `
[server]
host = "127.0.0.1"
port = 0

[data]
path = ${JSON.stringify(data)}

[auth]
enabled = ${auth}
pubkey_whitelist = ${JSON.stringify(residents)}

[extensions.mls_gateway]
admin_pubkeys = ${JSON.stringify(admins)}
verify_keypackages = ${JSON.stringify(verify)}
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

// A proxy process over an example of deploy/proxies, with the addresses, certificate and times of the test in it.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { freePort } from '../js/support/server.js'
import { within } from '../js/support/wait.js'

/** The name under which clients know the relay, as in the examples. */
export const HOST = 'relay.example.com'
/** Time without bytes after which the proxies end a WebSocket, in seconds; the examples say 150. */
export const SILENCE_SECS = 12
/** Pause between two attempts to connect, in milliseconds. */
const LOOK_MS = 50

const EXAMPLES = new URL('../../../deploy/proxies/', import.meta.url)
// Debian's servers lie where only root looks.
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/** The proxies: the example's file, its changes, and the command that runs it. */
export const PROXIES = {
  nginx: {
    example: 'nginx.conf',
    changes: ({ port, relay, certificate, key }) => [
      ['listen 443 ssl;', `listen 127.0.0.1:${port} ssl;`],
      ['/etc/ssl/relay.example.com.pem', certificate],
      ['/etc/ssl/relay.example.com.key', key],
      ['http://127.0.0.1:8080', `http://127.0.0.1:${relay}`],
      ['proxy_read_timeout 150s;', `proxy_read_timeout ${SILENCE_SECS}s;`],
      ['proxy_send_timeout 150s;', `proxy_send_timeout ${SILENCE_SECS}s;`],
    ],
    more: (directory, example) => ({
      name: 'main.conf',
      text: `
daemon off;
worker_processes 1;
pid ${directory}/nginx.pid;
events {}
http {
    access_log off;
    ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(of => `${of}_temp_path ${directory}/${of};`).join(' ')}
    include ${example};
}
`,
    }),
    command: file => ['nginx', '-e', 'stderr', '-c', file],
  },
  Caddy: {
    example: 'Caddyfile',
    changes: ({ port, relay, certificate, key }) => [
      ['\nrelay.example.com {', `\n{\n\tadmin off\n\tauto_https disable_redirects\n}\n\nrelay.example.com:${port} {`],
      ['\treverse_proxy', `\tbind 127.0.0.1\n\ttls ${certificate} ${key}\n\treverse_proxy`],
      ['127.0.0.1:8080', `127.0.0.1:${relay}`],
    ],
    command: file => ['caddy', 'run', '--adapter', 'caddyfile', '--config', file],
  },
  HAProxy: {
    example: 'haproxy.cfg',
    changes: ({ port, relay, both }) => [
      ['bind :443', `bind 127.0.0.1:${port}`],
      ['/etc/ssl/relay.example.com.pem', both],
      ['127.0.0.1:8080', `127.0.0.1:${relay}`],
      ['timeout tunnel 150s', `timeout tunnel ${SILENCE_SECS}s`],
    ],
    command: file => ['haproxy', '-db', '-f', file],
  },
}

/** Chooses the proxy's port and makes its certificate, before there is a relay. */
export async function prepare(proxy) {
  const { example, changes, more, command } = PROXIES[proxy]
  const directory = await mkdtemp(join(tmpdir(), 'rnostr-proxy-'))
  const port = await freePort()
  const [certificate, key, both] = ['cert.pem', 'key.pem', 'both.pem'].map(name => join(directory, name))
  await promisify(execFile)('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', `/CN=${HOST}`, '-addext', `subjectAltName=DNS:${HOST}`, '-keyout', key, '-out', certificate,
  ])
  const ca = await readFile(certificate, 'utf8')
  await writeFile(both, ca + (await readFile(key, 'utf8')))
  return {
    port,
    ca,
    /** Starts the proxy in front of the relay at this port. */
    async start(relay) {
      let text = await readFile(new URL(example, EXAMPLES), 'utf8')
      for (const [from, to] of changes({ port, relay, certificate, key, both })) {
        assert.equal(text.split(from).length, 2, `${example} says once: ${from}`)
        text = text.replace(from, () => to)
      }
      let file = join(directory, example)
      await writeFile(file, text)
      if (more) {
        const { name, text } = more(directory, file)
        file = join(directory, name)
        await writeFile(file, text)
      }
      return run(command(file), directory, port)
    },
    remove: () => rm(directory, { recursive: true, force: true }),
  }
}

async function run([program, ...parameters], directory, port) {
  const home = { HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory }
  const options = { cwd: directory, env: { ...env, ...home }, stdio: ['ignore', 'pipe', 'pipe'] }
  const proxy = spawn(program, parameters, options)
  const log = []
  for (const stream of [proxy.stdout, proxy.stderr]) stream.on('data', data => log.push(data))
  const ended = once(proxy, 'exit')
  const failed = ended.then(() => Promise.reject(new Error(`${program} ended: ${log.join('')}`)))
  failed.catch(() => {})
  await within(Promise.race([listens(port), failed]), `${program} listens`)
  return {
    async stop() {
      proxy.kill('SIGTERM')
      await within(ended, `${program} ends`).finally(() => proxy.kill('SIGKILL'))
    },
  }
}

async function listens(port) {
  for (;;) {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await new Promise(resolve => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    })
    socket.destroy()
    if (isOpen) return
    await new Promise(resolve => setTimeout(resolve, LOOK_MS))
  }
}

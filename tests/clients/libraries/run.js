// Runs the suites, two at one time, and prints how many answers were silently empty.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'

const CONCURRENCY = 2
/** Longest time of one suite, in milliseconds. */
const SUITE_MS_MAX = 240_000

const directory = import.meta.dirname ?? new URL('.', import.meta.url).pathname
const files = readdirSync(directory).filter(name => name.endsWith('.test.js')).map(name => join(directory, name))
const total = { silent: 0, all: 0 }
const results = run({ files, concurrency: CONCURRENCY, timeout: SUITE_MS_MAX })
results.on('test:fail', () => (process.exitCode = 1))
results.on('test:diagnostic', ({ message }) => {
  const [, silent, all] = /^silent empty answers: (\d+) of (\d+)$/.exec(message) ?? []
  total.silent += Number(silent ?? 0)
  total.all += Number(all ?? 0)
})
results.compose(spec).pipe(process.stdout)
process.on('exit', () => console.log(`\nall libraries: ${total.silent} silent empty answers of ${total.all}`))

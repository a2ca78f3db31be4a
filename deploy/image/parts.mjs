// Reads a list of parts that cargo-cyclonedx made, keeps the parts that are compiled into the binary, and writes it.
//
//   node deploy/image/parts.mjs LIST FEATURES
//
// cargo-cyclonedx lists what any crate of the workspace needs, for tests too. `cargo tree` says what the binary is made
// of. The directory of the build says nothing about a part, and goes.

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'

const [list, features] = process.argv.slice(2)
const TARGET = 'x86_64-unknown-linux-gnu'
/** Fewest parts of a list that can be right. */
const PARTS_MIN = 100

const tree = ['tree', '--locked', '-p', 'rnostr', '-e', 'normal,build', '--features', features, '--target', TARGET,
  '--prefix', 'none']
const lines = execFileSync('cargo', tree, { encoding: 'utf8' }).split('\n')
// A line is: name, version, and for some more behind them.
const built = new Set(lines.filter(Boolean).map(line => line.split(' ').slice(0, 2).join(' ')))

const bom = JSON.parse(readFileSync(list, 'utf8').replaceAll(`path+file://${process.cwd()}`, 'path+file:///src'))
const { name, version } = bom.metadata.component
if (bom.bomFormat !== 'CycloneDX' || name !== 'rnostr') throw new Error(`${list} is no list of the relay's parts`)
bom.components = bom.components.filter(part => built.has(`${part.name} v${part.version}`))
const kept = new Set(bom.components.map(part => part['bom-ref']).concat(bom.metadata.component['bom-ref']))
bom.dependencies = bom.dependencies.filter(({ ref }) => kept.has(ref)).map(dependency => ({
  ...dependency,
  ...(dependency.dependsOn && { dependsOn: dependency.dependsOn.filter(ref => kept.has(ref)) }),
}))
const listed = new Set(bom.components.map(part => `${part.name} v${part.version}`)).add(`${name} v${version}`)
const missing = [...built].filter(part => !listed.has(part))
if (missing.length > 0) throw new Error(`the list lacks ${missing.join(', ')}`)
if (bom.components.length < PARTS_MIN) throw new Error(`the list has ${bom.components.length} parts`)
writeFileSync(list, `${JSON.stringify(bom, null, 2)}\n`)
console.log(`${bom.components.length} parts, CycloneDX ${bom.specVersion}`)

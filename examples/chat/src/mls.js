// MLS by ts-mls, in the forms that travel over Nostr: base64 of MLSMessages, and 32 bytes of a key as identity.

import { bytesToHex, hexToBytes } from 'nostr-tools/utils'
import * as ts from 'ts-mls'
import { defaultClientConfig } from 'ts-mls/clientConfig.js'
import { makeKeyPackageRef } from 'ts-mls/keyPackage.js'
import { decryptSenderData } from 'ts-mls/privateMessage.js'

export const SUITE = 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'
/** Lifetime of a KeyPackage, which begins an hour ago, since other people's clocks may be behind. */
const [LIFETIME_SECS, SKEW_SECS, LAST_RESORT] = [28 * 86_400, 3_600, 0x000a]
const suite = await ts.getCiphersuiteImpl(ts.getCiphersuiteFromName(SUITE))

const revive = state => ({ ...ts.decodeGroupState(state, 0)[0], clientConfig: defaultClientConfig })
const pack = message => ts.bytesToBase64(ts.encodeMlsMessage({ version: 'mls10', ...message }))
const unpack = text => ts.decodeMlsMessage(Uint8Array.from(atob(text), char => char.charCodeAt(0)), 0)[0]
const noPsk = ts.emptyPskIndex
const bytes = text => new TextEncoder().encode(text)
const keyOf = leaf => bytesToHex(leaf.credential.identity)

/** Makes a KeyPackage: `ref` and `content` for its event, and `secrets` for this browser. */
export async function newKeyPackage(key, isLastResort = false) {
  const now = Math.floor(Date.now() / 1000)
  const lifetime = { notBefore: BigInt(now - SKEW_SECS), notAfter: BigInt(now + LIFETIME_SECS) }
  const credential = { credentialType: 'basic', identity: hexToBytes(key) }
  const marks = isLastResort ? [{ extensionType: LAST_RESORT, extensionData: new Uint8Array() }] : []
  const secrets = await ts.generateKeyPackage(credential, ts.defaultCapabilities(), lifetime, marks, suite)
  const ref = bytesToHex(await makeKeyPackageRef(secrets.publicPackage, suite.hash))
  return { ref, secrets, content: pack({ keyPackage: secrets.publicPackage, wireformat: 'mls_key_package' }) }
}
export async function found(key, id) {
  const { publicPackage, privatePackage } = (await newKeyPackage(key)).secrets
  return ts.encodeGroupState(await ts.createGroup(bytes(id), publicPackage, privatePackage, [], suite))
}

/** The members: `key`, and `leaf`, the place in the tree. */
export function members(state) {
  const member = (node, at) => (node?.nodeType === 'leaf' ? [{ key: keyOf(node.leaf), leaf: at / 2 }] : [])
  return revive(state).ratchetTree.flatMap(member)
}
async function change(before, proposal) {
  const options = { extraProposals: [proposal], ratchetTreeExtension: true }
  const made = await ts.createCommit({ state: revive(before), cipherSuite: suite }, options)
  const welcome = made.welcome && pack({ welcome: made.welcome, wireformat: 'mls_welcome' })
  return { commit: pack(made.commit), welcome, state: ts.encodeGroupState(made.newState) }
}
export const remove = (state, leaf) => change(state, { proposalType: 'remove', remove: { removed: leaf } })

/** Adds the owner of the KeyPackage in `content`. The commit is for the members, the Welcome for the new one. */
export async function add(state, content, owner) {
  const { keyPackage } = unpack(content)
  if (keyOf(keyPackage.leafNode) !== owner) throw new Error('The relay gave a KeyPackage of somebody else.')
  return change(state, { proposalType: 'add', add: { keyPackage } })
}

/** Joins by a Welcome with the secrets of its KeyPackage, which `packages` has by their refs; else undefined. */
export async function join(content, packages) {
  const { welcome } = unpack(content)
  const secrets = welcome.secrets.map(({ newMember }) => packages.get(bytesToHex(newMember))).find(Boolean)
  const { publicPackage, privatePackage } = secrets ?? {}
  return secrets && ts.encodeGroupState(await ts.joinGroup(welcome, publicPackage, privatePackage, noPsk, suite))
}
export async function encrypt(before, text) {
  const made = await ts.createApplicationMessage(revive(before), bytes(text), suite)
  const content = pack({ privateMessage: made.privateMessage, wireformat: 'mls_private_message' })
  return { state: ts.encodeGroupState(made.newState), content }
}

/** Reads a message. `by` is the member whose leaf signed it. A commit counts if `admin` made it. */
export async function read(before, content, admin) {
  const [now, { privateMessage }] = [revive(before), unpack(content)]
  const past = now.historicalReceiverData.get(privateMessage.epoch)
  const { senderDataSecret, ratchetTree } = past ?? { ...now.keySchedule, ratchetTree: now.ratchetTree }
  const { leafIndex } = await decryptSenderData(privateMessage, senderDataSecret, suite)
  const by = keyOf(ratchetTree[leafIndex * 2].leaf)
  const policy = () => (by === admin ? 'accept' : 'reject')
  const { newState, message } = await ts.processPrivateMessage(now, privateMessage, noPsk, suite, policy)
  const isRemoved = newState.groupActiveState.kind !== 'active'
  return { by, state: ts.encodeGroupState(newState), isRemoved, text: message && new TextDecoder().decode(message) }
}

// Imports of the suites and of test-websocket.js from the packages. Node 20 has no WebSocket client, so nostr-tools
// gets the one of `ws`.

import { SimplePool, useWebSocketImplementation as useInPool } from 'nostr-tools/pool'
import { Relay, useWebSocketImplementation as useInRelay } from 'nostr-tools/relay'
import { WebSocket } from 'ws'

useInPool(WebSocket)
useInRelay(WebSocket)

export * as nip11 from 'nostr-tools/nip11'
export * as nip17 from 'nostr-tools/nip17'
export * as nip19 from 'nostr-tools/nip19'
export * as nip42 from 'nostr-tools/nip42'
export * as nip59 from 'nostr-tools/nip59'
export * as nip98 from 'nostr-tools/nip98'
export { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
// nostr-tools exports nip77 from its main module alone.
export { nip77 } from 'nostr-tools'
export { Relay, SimplePool, WebSocket }

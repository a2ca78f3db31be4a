// The environment that the libraries expect: a browser's WebSocket, and timers that nobody waits for. Each suite
// imports this module first.

import { clearTimeout, setInterval, setTimeout } from 'node:timers'

import { WebSocket } from 'ws'

globalThis.WebSocket = WebSocket

// The libraries look after their connections by timers that never end. The process ends with the suite all the same.
globalThis.setTimeout = (...parameters) => setTimeout(...parameters).unref()
globalThis.setInterval = (...parameters) => setInterval(...parameters).unref()
globalThis.clearTimeout = clearTimeout

// @welshman/net: sockets with policies. One of them keeps what was sent before AUTH and sends it again after it.

import './support/environment.js'

import { Difference, DifferenceEvent, Pool, PublishStatus, Socket } from '@welshman/net'
import { defaultSocketPolicies, makeSocketPolicyAuth, publishOne, requestOne } from '@welshman/net'

import { WAIT_MS } from '../js/support/wait.js'
import { suite } from './support/suite.js'

async function open(url, person) {
  const authenticates = makeSocketPolicyAuth({ sign: async template => person.finalize(template) })
  const pool = new Pool({ makeSocket: url => new Socket(url, [...defaultSocketPolicies, authenticates]) })
  const context = { pool }
  return {
    async publish(event) {
      const { status, detail } = await publishOne({ relay: url, event, context, timeout: WAIT_MS })
      if (status !== PublishStatus.Success) throw new Error(detail)
    },
    async stored(filter) {
      let failure
      const events = await requestOne({
        relay: url,
        filters: [filter],
        autoClose: true,
        context,
        onClosed: reason => (failure = reason),
        onDisconnect: () => (failure = 'the socket has closed'),
      })
      if (failure) throw new Error(failure)
      return events
    },
    live: (filter, heard) =>
      new Promise((resolve, reject) => {
        requestOne({ relay: url, filters: [filter], context, onEvent: heard, onEose: resolve, onClosed: reject })
      }),
    sync: (filter, known) =>
      new Promise((resolve, reject) => {
        const difference = new Difference({ relay: url, filter, events: known, context })
        difference.on(DifferenceEvent.Error, reject)
        difference.on(DifferenceEvent.Close, () => resolve([...difference.need]))
      }),
    close: () => pool.clear(),
  }
}

suite('@welshman/net', open)

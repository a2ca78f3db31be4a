// Waiting with a time limit.

/** Longest wait, in milliseconds. */
export const WAIT_MS = 30_000

/** Waits for `promise`. Rejects with an error that names `what` when the time is up. */
export async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${WAIT_MS} ms`)), WAIT_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Queue of received values, which a test awaits one at a time. */
export class Inbox {
  #values = []
  #waiting = []

  push(value) {
    const next = this.#waiting.shift()
    if (next) next(value)
    else this.#values.push(value)
  }

  next(what) {
    const promise = this.#values.length > 0
      ? Promise.resolve(this.#values.shift())
      : new Promise(resolve => this.#waiting.push(resolve))
    return within(promise, what)
  }

  /** Received values that no test has awaited. */
  get rest() {
    return [...this.#values]
  }
}

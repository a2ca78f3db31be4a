// Waiting with an end to it.

/** The longest that anything here waits for. */
export const WAIT_MS = 30_000

/** `promise`, or an error that says what did not come. */
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

/** Values that come one after the other, to be awaited one at a time. */
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

  /** What has come and was not awaited. */
  get rest() {
    return [...this.#values]
  }
}

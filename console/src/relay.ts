// Publishing over a WebSocket: AUTH (NIP-42), one event after the other, and the relay's answer to each.

import { login } from "./state";
import type { EventTemplate, SignedEvent } from "./types";

// Longest wait for each answer, in milliseconds.
const TIMEOUT_MS = 10_000;
// Longest wait for a signature of AUTH, in milliseconds: an extension may ask the person.
const SIGNATURE_MS = 120_000;

export interface Answer {
  event: SignedEvent;
  accepted: boolean;
  reason: string;
}

export function now(): number {
  return Math.floor(Date.now() / 1000);
}

type Frame = [string, ...unknown[]];

// Frames of a socket in their order.
class Frames {
  private readonly waiting: Frame[] = [];
  private wake: (() => void) | null = null;
  private isClosed = false;

  constructor(private readonly socket: WebSocket) {
    socket.onmessage = ({ data }) => {
      try {
        const frame: unknown = JSON.parse(String(data));
        if (Array.isArray(frame)) this.waiting.push(frame as Frame);
      } catch {
        // A frame that is no JSON answers nothing.
      }
      this.wake?.();
    };
    socket.onclose = () => {
      this.isClosed = true;
      this.wake?.();
    };
  }

  send(...frame: Frame): void {
    this.socket.send(JSON.stringify(frame));
  }

  // The next frame that `wanted` takes.
  async find(wanted: (frame: Frame) => boolean): Promise<Frame> {
    const end = Date.now() + TIMEOUT_MS;
    for (;;) {
      const found = this.waiting.shift();
      if (found) {
        if (wanted(found)) return found;
        continue;
      }
      const left = end - Date.now();
      if (this.isClosed || left <= 0) throw new Error("The relay does not answer. Look at the state, then repeat.");
      await new Promise<void>((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, left);
      });
    }
  }

  async answer(id: string): Promise<{ accepted: boolean; reason: string }> {
    const [, , accepted, reason] = await this.find(([verb, subject]) => verb === "OK" && subject === id);
    return { accepted: accepted === true, reason: String(reason ?? "") };
  }
}

// Signs and publishes events in their order, up to the first one that is refused. Its answer is the last one.
export async function publish(templates: EventTemplate[]): Promise<Answer[]> {
  const current = login.value;
  if (!current) throw new Error("Log in again.");
  const { signer, session } = current;
  const events: SignedEvent[] = [];
  for (const template of templates) events.push(await signer.sign(template));
  const socket = new WebSocket(location.origin.replace(/^http/, "ws"));
  try {
    const frames = new Frames(socket);
    const [, challenge] = await frames.find(([verb]) => verb === "AUTH");
    const tags = [
      ["relay", session.relay_url],
      ["challenge", String(challenge)],
    ];
    const auth = await withLimit(signer.sign({ kind: 22242, created_at: now(), tags, content: "" }));
    frames.send("AUTH", auth);
    const { accepted, reason } = await frames.answer(auth.id);
    if (!accepted) throw new Error(`The relay refuses the key: ${reason}`);
    const answers: Answer[] = [];
    for (const event of events) {
      frames.send("EVENT", event);
      const answer = await frames.answer(event.id);
      answers.push({ event, ...answer });
      if (!answer.accepted) break;
    }
    return answers;
  } finally {
    socket.close();
  }
}

function withLimit<T>(signature: Promise<T>): Promise<T> {
  const limit = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error("The key's extension does not sign. Open it, then repeat.")), SIGNATURE_MS);
  });
  return Promise.race([signature, limit]);
}

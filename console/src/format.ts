// Numbers and times as the page writes them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const FINE = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

export const NONE = "–";

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : WHOLE.format(value);
}

export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return value >= 100 ? WHOLE.format(value) : SHORT.format(value);
}

export function millis(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  if (value >= 10_000) return `${SHORT.format(value / 1000)} s`;
  return `${value >= 100 ? WHOLE.format(value) : FINE.format(value)} ms`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${scaled >= 100 ? WHOLE.format(scaled) : SHORT.format(scaled)} ${UNITS[unit]}`;
}

const STEPS: [number, string][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

export function duration(seconds: number): string {
  const [size, unit] = STEPS.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

// Times of the relay are seconds since 1970 where Nostr has them, and milliseconds elsewhere.
function inMillis(time: number): number {
  return time < 1e11 ? time * 1000 : time;
}

export function ago(time: number | null | undefined): string {
  if (time === null || time === undefined) return NONE;
  const seconds = Math.floor((Date.now() - inMillis(time)) / 1000);
  if (seconds < -60) return `in ${duration(-seconds)}`;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

export function date(time: number): string {
  return new Date(inMillis(time)).toISOString().replace(/\.\d+Z$/, "Z");
}

export function clock(time: number): string {
  return new Date(inMillis(time)).toLocaleTimeString("en-GB");
}

export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

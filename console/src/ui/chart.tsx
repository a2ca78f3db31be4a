// A chart of the last 15 minutes, with the newest values beside it as text.

import { useEffect, useId, useRef } from "preact/hooks";
import uPlot from "uplot";
import { NONE, bytes, count } from "../format";
import { theme } from "../state";

// Time that a chart shows, in milliseconds.
export const SPAN_MS = 15 * 60_000;

export interface Series {
  label: string;
  // Number of the colour, 1 to 4.
  colour: 1 | 2 | 3 | 4;
  values: (number | null)[];
}

type Format = (value: number | null | undefined) => string;

// The colour of a custom property in the theme that is shown, as the canvas takes it.
function colour(name: string): string {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = `var(${name})`;
  const shown = getComputedStyle(probe).color;
  probe.remove();
  return shown;
}

const HEIGHT = 144;
// Steps of an axis of numbers of things: 1, 2, 5, 10 and so on.
const WHOLE_STEPS = Array.from({ length: 9 }, (_, exponent) => [1, 2, 5].map((step) => step * 10 ** exponent)).flat();
// Steps of an axis of bytes.
const POWERS_OF_TWO = Array.from({ length: 48 }, (_, exponent) => 2 ** exponent);

function options(width: number, series: Series[], format: Format): uPlot.Options {
  const [text, grid] = [colour("--muted"), colour("--line")];
  const axis = { stroke: text, font: "11px system-ui, sans-serif", ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, size: 24, space: 72, values: (_, times) => times.map(minutes) },
      {
        ...axis,
        grid: { stroke: grid, width: 1 },
        size: 64,
        ...(format === bytes && { incrs: POWERS_OF_TWO }),
        ...(format === count && { incrs: WHOLE_STEPS }),
        space: 32,
        values: (_, all) => all.map((it) => format(it)),
      },
    ],
    series: [
      {},
      ...series.map(({ label, colour: number }) => ({
        label,
        stroke: colour(`--chart-${number}`),
        width: 2,
        points: { show: false, filter: lonely },
        spanGaps: false,
      })),
    ],
  };
}

// A line needs two neighbouring samples; one that has no neighbour is drawn as a point.
function lonely(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? [];
  const isThere = (place: number) => values[place] !== null && values[place] !== undefined;
  return [...values.keys()].filter((place) => isThere(place) && !isThere(place - 1) && !isThere(place + 1));
}

function minutes(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

function last(values: (number | null)[]): number | null {
  return values.at(-1) ?? null;
}

function highest(values: (number | null)[]): number | null {
  const numbers = values.filter((value) => value !== null);
  return numbers.length > 0 ? Math.max(...numbers) : null;
}

export function Chart({
  title,
  at,
  series,
  format,
  now,
  absent,
}: {
  title: string;
  // Times of the values, in milliseconds.
  at: number[];
  series: Series[];
  format: Format;
  now: number;
  // Said in place of a chart without any value.
  absent?: string;
}) {
  const id = useId();
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const isEmpty = series.every(({ values }) => values.every((value) => value === null));
  const names = series.map(({ label, colour: number }) => `${label}${number}`).join();

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const made = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element.clientWidth, series, format), [[], ...series.map(() => [])], element);
      fill();
    };
    const fill = () => element.dispatchEvent(new Event("fill"));
    made();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", made);
    return () => {
      dark.removeEventListener("change", made);
      resized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, isEmpty, theme.value]);

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const fill = () => {
      const data: uPlot.AlignedData = [at.map((time) => time / 1000), ...series.map(({ values }) => values)];
      plot.current?.batch(() => {
        plot.current?.setData(data, true);
        plot.current?.setScale("x", { min: (now - SPAN_MS) / 1000, max: now / 1000 });
      });
    };
    fill();
    element.addEventListener("fill", fill);
    return () => element.removeEventListener("fill", fill);
  });

  return (
    <figure class="chart" aria-labelledby={id}>
      <figcaption id={id}>{title}</figcaption>
      <table class="legend">
        <caption class="unseen">{title}: newest and highest value of the last 15 minutes</caption>
        <thead class="unseen">
          <tr>
            <th scope="col">Series</th>
            <th scope="col">Newest</th>
            <th scope="col">Highest</th>
          </tr>
        </thead>
        <tbody>
          {series.map(({ label, colour: number, values }) => (
            <tr key={label}>
              <th scope="row">
                <span class={`swatch colour-${number}`} aria-hidden="true" />
                {label}
              </th>
              <td class="newest">{format(last(values))}</td>
              <td class="highest">{highest(values) === null ? NONE : `max ${format(highest(values))}`}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {isEmpty && <p class="chart-absent">{absent ?? "No value in the last 15 minutes."}</p>}
      {!isEmpty && <div class="plot" ref={place} aria-hidden="true" />}
    </figure>
  );
}

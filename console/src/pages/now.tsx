// Now: the last 15 minutes of this instance, refusals, and the instances of the cluster.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, get } from "../api";
import { bytes, clock, count, duration, millis, plural, rate } from "../format";
import { returns } from "../state";
import type { History, Instance, Now, Sample } from "../types";
import { Badge, Empty, Loading, Notice, Page, Section } from "../ui/basic";
import { Chart, SPAN_MS, type Series } from "../ui/chart";
import { Loaded, useResource } from "../ui/resource";
import { Table } from "../ui/table";

// Interval of the questions, in milliseconds: the relay takes a sample every 5 s.
const EVERY_MS = 5_000;

// The samples of the last 15 minutes, of one instance. Each question asks for those after the newest one.
function useSamples(): { history: History | null; error: Problem | null } {
  const [history, setHistory] = useState<History | null>(null);
  const [error, setError] = useState<Problem | null>(null);
  const newest = useRef(0);
  const back = returns.value;
  useEffect(() => {
    const abort = new AbortController();
    const ask = async () => {
      try {
        const answer = await get<History>(`history?since=${newest.current}`, abort.signal);
        if (abort.signal.aborted) return;
        setHistory((before) => joined(before, answer));
        newest.current = answer.samples.at(-1)?.at ?? newest.current;
        setError(null);
      } catch (reason) {
        if (!abort.signal.aborted) setError(reason instanceof Problem ? reason : new Problem(String(reason), 0));
      }
    };
    void ask();
    const timer = setInterval(() => !document.hidden && void ask(), EVERY_MS);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [back]);
  return { history, error };
}

function joined(before: History | null, answer: History): History {
  // Behind a balancer the next answer may be another instance's, whose samples do not continue these.
  const isSame = before && before.instance === answer.instance;
  const all = isSame ? [...before.samples, ...answer.samples] : answer.samples;
  const newest = all.at(-1)?.at ?? 0;
  return { ...answer, samples: all.filter(({ at }) => at > newest - SPAN_MS) };
}

// Times and samples, with a hole where the relay was away, so that the line breaks there.
function withHoles({ samples, interval_ms: interval }: History): { at: number[]; rows: (Sample | null)[] } {
  const at: number[] = [];
  const rows: (Sample | null)[] = [];
  for (const sample of samples) {
    const before = at.at(-1);
    if (before !== undefined && sample.at - before > 3 * interval) {
      at.push(before + interval);
      rows.push(null);
    }
    at.push(sample.at);
    rows.push(sample);
  }
  return { at, rows };
}

type Read = (sample: Sample) => number | null;

function Charts({ history }: { history: History }) {
  const { at, rows } = withHoles(history);
  const line = (label: string, colour: Series["colour"], read: Read): Series => ({
    label,
    colour,
    values: rows.map((row) => (row === null ? null : read(row))),
  });
  const common = { at, now: at.at(-1) ?? Date.now() };
  return (
    <div class="charts">
      <Chart
        {...common}
        title="Events a second"
        format={rate}
        series={[line("Accepted", 1, (it) => it.events_per_second), line("Refused", 3, (it) => it.refused_per_second)]}
      />
      <Chart
        {...common}
        title="Reads a second"
        format={rate}
        series={[
          line("Requests", 1, (it) => it.requests_per_second),
          line("Live deliveries", 2, (it) => it.deliveries_per_second),
        ]}
      />
      <Chart
        {...common}
        title="Time to OK"
        format={millis}
        absent="No event came in the last 15 minutes."
        series={[line("Half of them", 1, (it) => it.ok_p50_ms), line("99 of 100", 2, (it) => it.ok_p99_ms)]}
      />
      <Chart
        {...common}
        title="Time to live delivery"
        format={millis}
        absent="No live event was delivered in the last 15 minutes."
        series={[line("99 of 100", 1, (it) => it.delivery_p99_ms)]}
      />
      <Chart
        {...common}
        title="Connections"
        format={count}
        series={[line("Connections", 1, (it) => it.connections), line("Subscriptions", 2, (it) => it.subscriptions)]}
      />
      <Chart
        {...common}
        title="Lag behind the shared log"
        format={millis}
        absent="This relay has one instance, which follows no log of others."
        series={[line("Lag", 1, (it) => it.lag_ms)]}
      />
      <Chart
        {...common}
        title="Storage"
        format={bytes}
        absent="No size yet. A store that tells its size does so within 15 seconds."
        series={[line("Store", 1, (it) => it.store_bytes)]}
      />
      <Chart
        {...common}
        title="Memory for messages"
        format={bytes}
        series={[line("In use", 1, (it) => it.memory_bytes)]}
      />
    </div>
  );
}

function Headline({ sample }: { sample: Sample | undefined }) {
  const tiles: [string, string][] = [
    ["Events a second", rate(sample?.events_per_second)],
    ["Time to OK, 99 of 100", millis(sample?.ok_p99_ms)],
    ["Connections", count(sample?.connections)],
    ["Refused a second", rate(sample?.refused_per_second)],
  ];
  return (
    <dl class="tiles">
      {tiles.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Instances({ instances }: { instances: Instance[] }) {
  return (
    <Table
      caption="Instances of the relay"
      rows={instances}
      id={({ name }) => name}
      columns={[
        {
          title: "Instance",
          cell: ({ name, self }) => (
            <span class="inline">
              <code>{name}</code>
              {self && <Badge>answers this page</Badge>}
            </span>
          ),
        },
        {
          title: "State",
          wide: true,
          cell: ({ ready, reason }) =>
            ready ? <Badge tone="good">ready</Badge> : <Badge tone="bad">not ready{reason && `: ${reason}`}</Badge>,
        },
        { title: "Version", cell: ({ version }) => version },
        { title: "Up for", number: true, cell: ({ uptime_seconds: up }) => duration(up) },
        { title: "Heard", number: true, cell: ({ seen_seconds_ago: seen }) => `${duration(seen)} ago` },
      ]}
    />
  );
}

function Refusals({ refusals }: { refusals: Now["refusals"] }) {
  if (refusals.length === 0)
    return <Empty title="No refusals">The relay refused nothing in the last 15 minutes.</Empty>;
  const most = Math.max(...refusals.map(({ count: number }) => number));
  return (
    <ul class="bars">
      {refusals.map(({ reason, count: number }) => (
        <li key={reason}>
          <code>{reason}</code>
          <meter min={0} max={most} value={number} aria-hidden="true" />
          <span class="number">{count(number)}</span>
        </li>
      ))}
    </ul>
  );
}

export function NowPage() {
  const { history, error } = useSamples();
  const now = useResource<Now>("now", EVERY_MS);
  const newest = history?.samples.at(-1);
  return (
    <Page
      title="Now"
      lead={
        newest ? `The last 15 minutes of this instance. Newest values of ${clock(newest.at)}.` : "The last 15 minutes."
      }
    >
      <Headline sample={newest} />
      {error && error.status !== 0 && <Notice tone="bad">{error.message}</Notice>}
      {history && history.samples.length > 0 && <Charts history={history} />}
      {!history && !error && <Loading what="Reading the last 15 minutes…" />}
      {history?.samples.length === 0 && (
        <Empty title="No values yet">The relay has just started. The first values come within 5 seconds.</Empty>
      )}
      <div class="columns">
        <Section title="Refusals" about="By the first word of the reason, in the last 15 minutes.">
          <Loaded resource={now} what="Reading the refusals…">
            {({ refusals }) => <Refusals refusals={refusals} />}
          </Loaded>
        </Section>
        <Section title="Store">
          <Loaded resource={now} what="Reading the store…">
            {({ store }) => (
              <dl class="facts">
                <div>
                  <dt>Backend</dt>
                  <dd>{store.backend}</dd>
                </div>
                <div>
                  <dt>Size</dt>
                  <dd>{bytes(store.bytes)}</dd>
                </div>
                <div>
                  <dt>Events</dt>
                  <dd>{count(store.events)}</dd>
                </div>
                {newest && (
                  <div>
                    <dt>Memory, at most</dt>
                    <dd>{bytes(newest.memory_bytes_max)}</dd>
                  </div>
                )}
              </dl>
            )}
          </Loaded>
        </Section>
      </div>
      <Section title="Instances" about="An instance is forgotten after a minute of silence." wide>
        <Loaded resource={now} what="Reading the instances…">
          {({ instances }) => (
            <>
              <p class="unseen">{plural(instances.length, "instance")}</p>
              <Instances instances={instances} />
            </>
          )}
        </Loaded>
      </Section>
    </Page>
  );
}

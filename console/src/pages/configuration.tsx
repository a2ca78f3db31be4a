// Configuration: every key as it runs, and where its value came from.

import { useState } from "preact/hooks";
import { plural } from "../format";
import type { Configuration, ConfigurationKey } from "../types";
import { Badge, Empty, Field, Page, Section } from "../ui/basic";
import { Loaded, useResource } from "../ui/resource";
import { Table } from "../ui/table";

const SOURCES: Record<ConfigurationKey["source"], string> = { file: "file", variable: "variable", default: "default" };

function Value({ value, unit, secret }: ConfigurationKey) {
  if (secret) return <span class="secret">hidden: a secret</span>;
  if (value === null || value === undefined || value === "") return <span class="muted">not set</span>;
  const isList = Array.isArray(value);
  if (isList && value.length === 0) return <span class="muted">empty list</span>;
  return (
    <code class="value">
      {typeof value === "string" ? value : isList ? value.map(String).join(", ") : JSON.stringify(value)}
      {unit && <span class="muted"> {unit}</span>}
    </code>
  );
}

// A text in which backquotes mark code.
function Marked({ text }: { text: string }) {
  return <>{text.split("`").map((part, place) => (place % 2 === 1 ? <code key={place}>{part}</code> : part))}</>;
}

function Origin({ source, origin }: ConfigurationKey) {
  if (source === "default") return <span class="muted">default</span>;
  return (
    <span class="inline">
      <Badge tone="good">{SOURCES[source]}</Badge>
      {origin && <code class="value">{origin}</code>}
    </span>
  );
}

function Sections({ keys }: { keys: ConfigurationKey[] }) {
  const sections = [...new Set(keys.map(({ section }) => section))];
  return (
    <>
      {sections.map((section) => (
        <Section key={section} title={section ? `[${section}]` : "Top"} wide>
          <Table
            caption={`Keys of ${section}`}
            rows={keys.filter((key) => key.section === section)}
            id={({ key }) => key}
            columns={[
              {
                title: "Key",
                cell: ({ key, about }) => (
                  <div class="key-about">
                    <code>{key}</code>
                    {about && (
                      <p class="hint">
                        <Marked text={about} />
                      </p>
                    )}
                  </div>
                ),
              },
              { title: "Value", wide: true, cell: Value },
              { title: "From", wide: true, cell: Origin },
              { title: "Change", cell: ({ restart }) => (restart ? <span class="muted">restart</span> : "reload") },
            ]}
          />
        </Section>
      ))}
    </>
  );
}

export function ConfigurationPage() {
  const resource = useResource<Configuration>("configuration");
  const [word, setWord] = useState("");
  const [isSetOnly, setSetOnly] = useState(false);
  const fits = ({ section, key, about, source, origin }: ConfigurationKey) => {
    if (isSetOnly && source === "default") return false;
    return `${section}.${key} ${about} ${origin ?? ""}`.toLowerCase().includes(word.trim().toLowerCase());
  };
  return (
    <Page
      title="Configuration"
      lead="What runs now on this instance. Edit the file or the variable, then reload or restart."
    >
      <div class="search" role="search">
        <Field label="Filter" hint="A part of a key's name or of its description.">
          {(props) => (
            <input
              {...props}
              type="search"
              autocomplete="off"
              spellcheck={false}
              onInput={({ currentTarget }) => setWord(currentTarget.value)}
            />
          )}
        </Field>
        <label class="check">
          <input
            type="checkbox"
            checked={isSetOnly}
            onChange={({ currentTarget }) => setSetOnly(currentTarget.checked)}
          />
          Only what is set
        </label>
      </div>
      <Loaded resource={resource} what="Reading the configuration…">
        {({ keys }) => {
          const fitting = keys.filter(fits);
          return (
            <>
              <p class="unseen" role="status">
                {plural(fitting.length, "key")}
              </p>
              {fitting.length === 0 ? (
                <Empty title="No key fits">Change the filter.</Empty>
              ) : (
                <Sections keys={fitting} />
              )}
            </>
          );
        }}
      </Loaded>
    </Page>
  );
}

// The answers of /console/api, as the relay gives them (docs/http.md, "Console").

export type Role = "member" | "admin";

export interface Session {
  token: string;
  pubkey: string;
  npub: string;
  role: "operator" | "group_admin";
  relay_url: string;
  nip86_url: string;
  version: string;
}

export interface Sample {
  at: number;
  events_per_second: number;
  refused_per_second: number;
  requests_per_second: number;
  deliveries_per_second: number;
  connections: number;
  subscriptions: number;
  ok_p50_ms: number | null;
  ok_p99_ms: number | null;
  delivery_p99_ms: number | null;
  lag_ms: number | null;
  store_bytes: number | null;
  memory_bytes: number;
  memory_bytes_max: number;
}

export interface Instance {
  name: string;
  self: boolean;
  ready: boolean;
  reason?: string;
  version: string;
  uptime_seconds: number;
  seen_seconds_ago: number;
}

export interface Now {
  now: number;
  instances: Instance[];
  store: { backend: string; bytes?: number; events?: number };
  refusals: { reason: string; count: number }[];
}

export interface History {
  interval_ms: number;
  instance?: string;
  samples: Sample[];
}

export interface GroupSummary {
  group_id: string;
  display_name?: string | null;
  member_count: number;
  admin_count: number;
  last_epoch: number | null;
  source: string;
  created_at: number;
  // Told about one group alone.
  last_activity?: number | null;
  seq: number;
}

export interface Member {
  pubkey: string;
  npub: string;
  role: Role;
}

export interface RosterEntry {
  id: string;
  created_at: number;
  seq: number;
  op: string;
  by: string;
  subjects: string[];
  role: Role | null;
  event: SignedEvent;
}

export interface Group extends GroupSummary {
  // At most 1,000; `member_count` counts all.
  members: Member[];
  roster: RosterEntry[];
  strict: boolean;
}

export interface Page {
  next_cursor?: string | null;
}

export interface Groups extends Page {
  groups: GroupSummary[];
}

export interface Owner {
  owner: string;
  npub: string;
  // Null where a group admin is not told: for a member who never acted in a group of this admin.
  unclaimed: number | null;
  last_resort: number | null;
  low: boolean | null;
  low_watermark: number;
}

export interface Owners extends Page {
  owners: Owner[];
}

export interface RefusedKeyPackages {
  // `refused` is false where `verify_keypackages` let the event pass.
  refused: { at: number; owner: string; event_id: string; reason: string; refused: boolean }[];
}

export interface Access {
  whitelist: string[];
  admins: string[];
  banned_keys: { pubkey: string; reason: string }[];
  allowed_keys: { pubkey: string; reason: string }[];
  banned_events: { id: string; reason: string }[];
  blocked_ips: { ip: string; reason: string }[];
  allowed_kinds: (number | string)[];
  refused_kinds: (number | string)[];
  name: string;
  description: string;
  icon: string | null;
  audit: { at: number; by: string; method: string; subject: string; reason: string }[];
}

export interface ConfigurationKey {
  section: string;
  key: string;
  value: unknown;
  // Empty for a value without one.
  unit: string;
  source: "file" | "variable" | "default";
  origin: string | null;
  secret: boolean;
  restart: boolean;
  about: string;
}

export interface Configuration {
  keys: ConfigurationKey[];
}

export interface Diagnosis {
  write: { allowed: boolean; reason: string; rule: string };
  read: { visible: boolean; reason: string; rule: string };
}

export interface EventTemplate {
  kind: number;
  created_at: number;
  tags: string[][];
  content: string;
}

export interface SignedEvent extends EventTemplate {
  id: string;
  pubkey: string;
  sig: string;
}

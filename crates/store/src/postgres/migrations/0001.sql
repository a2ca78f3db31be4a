-- Integers that count seconds are Unix seconds; null in expires_at stands for never. Keys, ids and hashes are bytes.
-- A cursor is a place in the log: given out in commit order under the row of rnostr.log, and never again.

create table rnostr.log (
    one boolean primary key default true check (one),
    head bigint not null,
    -- The secret under which routes are hashed, the same for every process.
    router_key bytea not null
) with (fillfactor = 10);

-- Rows are only appended and deleted, so that a vacuum gives back whole pages from the old end.
create table rnostr.events (
    cursor bigint primary key,
    id bytea not null,
    author bytea not null,
    kind integer not null,
    created_at bigint not null,
    received_at bigint not null,
    expires_at bigint,
    -- The end of its time in the log: expires_at, but soon for ephemeral events.
    kept_until bigint,
    flags smallint not null,
    -- Replaceable and addressable events: key, kind and hash of the d value.
    address bytea,
    -- The group whose state decides about its readers.
    group_id text collate "C",
    -- The group that it may have changed.
    touches_group text collate "C",
    -- Entries of rnostr.event_index that lead here.
    prefixes bigint[] not null,
    -- Hashes of the conditions that it meets, for followers of the log.
    routes bigint[] not null,
    record bytea not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
-- A record is JSON with hexadecimal digits: it shrinks, and is cut in pieces only where it must be.
alter table rnostr.events alter column record set storage main;

create unique index events_id on rnostr.events (id) where flags & 8 = 0;
create unique index events_address on rnostr.events (address) where address is not null;
create index events_kept_until on rnostr.events (kept_until) where kept_until is not null;
create index events_author on rnostr.events (author, created_at);

-- Under each prefix NIP-01's order: age is the negative of created_at.
create table rnostr.event_index (
    prefix bigint not null,
    age bigint not null,
    id bytea not null,
    cursor bigint not null,
    primary key (prefix, age, id)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);

-- Here and in rnostr.claimed the first 16 bytes of ids, keys and hashes.
create table rnostr.tombstones (
    target bytea not null,
    deleter bytea not null,
    public boolean not null,
    primary key (target, deleter)
);

create table rnostr.address_tombstones (
    address bytea primary key,
    until bigint not null
);

create table rnostr.vanished (
    key bytea primary key,
    until bigint not null
);

create table rnostr.packages (
    cursor bigint primary key references rnostr.events on delete cascade,
    owner bytea not null,
    reference bytea,
    content_hash bytea not null,
    last_resort boolean not null
);
create index packages_owner on rnostr.packages (owner, reference);

create table rnostr.claimed (
    owner bytea not null,
    content_hash bytea not null,
    primary key (owner, content_hash)
);

create table rnostr.groups (
    id text collate "C" primary key,
    -- JSON, without last_epoch. Text and not jsonb: a name may hold characters that jsonb refuses.
    record text not null,
    last_epoch bigint,
    -- Whether gift wraps decide about its members.
    by_wraps boolean not null
) with (fillfactor = 70);

create table rnostr.members (
    group_id text collate "C" not null,
    key bytea not null,
    admin boolean not null,
    primary key (group_id, key)
);
create index members_key on rnostr.members (key, group_id);

create table rnostr.unlisted (
    group_id text collate "C" primary key
);

create table rnostr.founded (
    key bytea not null,
    at bigint not null
);
create index founded_key on rnostr.founded (key, at);

insert into rnostr.log (head, router_key)
values (0, decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));

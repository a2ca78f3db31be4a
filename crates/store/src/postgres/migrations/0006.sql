-- Events that are removed for every reader, with the entries of rnostr.event_index that led to them. A sweep takes these
-- away, some at a time.
create table rnostr.removed (
    cursor bigint primary key,
    id bytea not null,
    created_at bigint not null,
    prefixes bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
create index removed_id on rnostr.removed (id);

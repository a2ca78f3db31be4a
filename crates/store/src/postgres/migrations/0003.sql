-- A nonce for each commit, by the head of the log after it. A process that knows a commit's nonce sees by it, later,
-- whether the log still holds this commit: a restored copy that has grown since has another one in its place.
create table rnostr.commits (
    head bigint primary key,
    nonce bigint not null,
    -- Time of the commit, by the server's clock.
    at bigint not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);

insert into rnostr.commits
select head, ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint,
    extract(epoch from clock_timestamp())::bigint from rnostr.log;

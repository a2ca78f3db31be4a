-- A mark for each start of a process, by the head of the log at that start. A place of the log belongs to the mark of the
-- last start before it. A restored copy is served by processes that start on it, so a place that it had before the
-- restore, and that its log reaches again, belongs to another mark then.
create table rnostr.histories (
    head bigint primary key,
    mark bigint not null
);

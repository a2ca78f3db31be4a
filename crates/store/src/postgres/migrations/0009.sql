-- The groups that removed events had touched, by the events' places in the log: a follower that has not come to such a
-- place yet still learns there that the group changed. The columns are those of rnostr.events.
create table rnostr.removed_touches (
    cursor bigint primary key,
    kind integer not null,
    flags smallint not null,
    touches_group text collate "C",
    touched_groups text[] collate "C",
    -- Time of the removal, by the server's clock.
    at bigint not null
);
create index removed_touches_at on rnostr.removed_touches (at);

-- Names that are used once, and the time after which they may be forgotten.
create table rnostr.used_once (
    name bytea primary key,
    until bigint not null
);
create index used_once_until on rnostr.used_once (until);

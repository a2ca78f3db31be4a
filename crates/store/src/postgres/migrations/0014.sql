-- Records of the relay itself, which all processes share. The version counts the writes.
create table rnostr.records (
    name text primary key,
    version bigint not null,
    value bytea not null
);

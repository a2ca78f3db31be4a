-- What claims of an owner's KeyPackages took in the last hour, and the last request to the owner for new ones.
create table rnostr.ledgers (
    owner bytea primary key,
    until bigint not null,
    packed bytea not null
);
create index ledgers_until on rnostr.ledgers (until);

-- Answers to claims, kept for repetitions: by reader, and by a hash of the name that the reader chose.
create table rnostr.receipts (
    reader bytea not null,
    name bytea not null,
    until bigint not null,
    packed bytea not null,
    primary key (reader, name)
);
create index receipts_until on rnostr.receipts (until);

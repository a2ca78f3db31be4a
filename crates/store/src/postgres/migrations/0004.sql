-- Memberships in which the key has not acted: since when, and the founder that they count against. Every membership that
-- was made before counts as acted in.
alter table rnostr.members add column invited_at bigint;
alter table rnostr.members add column invited_by bytea;
create index members_invited on rnostr.members (key, invited_at, group_id) where invited_at is not null;

-- A copy of the record's founder.
alter table rnostr.groups add column founder bytea;

-- How many memberships a key has, and how many count against it as a founder.
create table rnostr.member_counts (
    key bytea primary key,
    memberships integer not null,
    invited integer not null
) with (fillfactor = 70);
insert into rnostr.member_counts (key, memberships, invited)
select key, count(*), 0 from rnostr.members group by key;

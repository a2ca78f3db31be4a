-- The index entries under which events stand that a pending key takes along and did not write, so that a deletion that
-- names such an event finds nothing.
alter table rnostr.vanished add column prefixes bigint[];
create index vanished_prefixes on rnostr.vanished using gin (prefixes) where pending;

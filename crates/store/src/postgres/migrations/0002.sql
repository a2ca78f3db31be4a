-- Pending keys have events left: these are hidden, and removed by sweeps.
alter table rnostr.vanished add column pending boolean not null default false;
create index vanished_pending on rnostr.vanished (key) where pending;

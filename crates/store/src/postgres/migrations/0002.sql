-- Keys that vanished and whose events are not all gone: they are hidden, and taken out by sweeps.
alter table rnostr.vanished add column pending boolean not null default false;
create index vanished_pending on rnostr.vanished (key) where pending;

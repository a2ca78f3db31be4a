-- The groups that an event touched, where touches_group does not say so: its flags then have the bit that stands for any
-- group, which a process of an older build goes by.
alter table rnostr.events add column touched_groups text[] collate "C";

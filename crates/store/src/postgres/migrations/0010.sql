-- Messages to a group or to one recipient in the order of their receipt. Each has one prefix. The sum keeps the planner
-- from reading the whole log by the primary key: only this index answers a condition on it.
create index events_received on rnostr.events ((prefixes[1]), (cursor + 0))
    where kind = any (array[445, 446, 447, 1059]);

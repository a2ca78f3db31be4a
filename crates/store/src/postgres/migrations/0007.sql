-- From now on invited_at is the rank by which a key's memberships give way, the least first: how many memberships of the
-- same key's making it had, and the time. A time alone, as before, is a rank that comes before all others. invited_by is
-- the key that made the membership.
create index members_invited_by on rnostr.members (invited_by, key) where invited_by is not null;

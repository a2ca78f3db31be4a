//! Following the log: entries after a cursor, events by their places, and notifications of new commits.

pub(crate) mod follow;
pub(crate) mod locations;
pub(crate) mod notifications;
mod tail;

pub(crate) use self::tail::Tail;

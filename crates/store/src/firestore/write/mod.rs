//! Writing: batches of events, claims of KeyPackages, sweeps, and the epochs of groups that are written later.

pub(crate) mod claims;
pub(crate) mod epochs;
pub(crate) mod once;
mod records;
pub(crate) mod save;
mod service;
mod sweep;
mod writes;

//! Reading: pages of queries, single look-ups, and the facts by which a batch is decided.

mod common_groups;
pub(crate) mod load;
mod load_addresses;
mod load_groups;
pub(crate) mod load_members;
mod load_packages;
pub(crate) mod lookups;
mod received;
pub(crate) mod scan;

//! The form of the database: names of collections and documents, the queries with their indexes, and the packing of
//! events, groups, KeyPackages and log entries into documents.
//!
//! Nothing here calls the service. Reading and writing both use these forms.

pub(crate) mod commits;
pub(crate) mod deploy;
pub(crate) mod events;
pub(crate) mod groups;
pub(crate) mod index;
pub(crate) mod names;
pub(crate) mod packages;
pub(crate) mod query;

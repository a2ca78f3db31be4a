//! The directory of KeyPackages as a service: claims by REST, and requests to owners whose stock is low.
//!
//! Source: docs/rules.md, "Claims" and "Stock". The store decides which KeyPackage is used up, counts the rates and
//! keeps answers, in one transaction. This module says who claims, by which limits, and releases what the store gives.

pub(crate) mod claim;
pub(crate) mod described;
pub(crate) mod request;
pub(crate) mod system_key;
mod transaction;

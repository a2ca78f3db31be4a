//! The MLS gateway, one file a kind: what the kind must look like, who may publish it, what it changes, who reads it.

pub mod deletion;
pub mod gift_wrap;
pub mod group;
pub mod group_message;
pub mod key_package;
pub mod key_package_request;
pub mod mls;
pub mod noise_dm;
pub mod roster;
pub mod welcome;

//! The MLS gateway, one file a kind: the kind's rules, and the check that admits it. Beside them, groups as a state
//! machine and the reader of MLS bytes.

pub mod deletion;
pub mod gift_wrap;
pub mod group;
pub mod group_message;
pub mod key_package;
pub mod key_package_request;
pub mod mls;
pub mod noise_dm;
pub mod roster;
pub mod vanish;
pub mod welcome;

//! The relay, tried by clients that were not written together with it.
//!
//! mdk-core is the reference implementation of the Marmot protocol (MLS groups on Nostr), nostr-sdk the library that
//! Marmot applications speak to relays with. What they take for granted of a relay is what these tests hold it to:
//! tests that share code with the relay would share its misunderstandings too.
//!
//! Each test starts a relay process of its own from the binary named in `RNOSTR_BIN`:
//!
//! ```sh
//! RNOSTR_BIN=/path/to/rnostr cargo test
//! ```

pub mod connection;
pub mod group;
pub mod person;
pub mod relay;

use std::time::Duration;

/// How long anything awaited may take before the test fails: far above what a loaded machine needs.
pub const WAIT: Duration = Duration::from_secs(30);

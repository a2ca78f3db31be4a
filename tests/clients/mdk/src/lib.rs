//! Tests of the relay by clients that others have written.
//!
//! mdk-core is the reference implementation of the Marmot protocol (MLS groups on Nostr), and nostr-sdk the library by
//! which Marmot applications talk to relays. These tests check that the relay does everything that they rely on. Tests
//! that share code with the relay would share its misunderstandings.
//!
//! Each test starts a relay process of its own from the binary named in `RNOSTR_BIN`:
//!
//! ```sh
//! RNOSTR_BIN=/path/to/rnostr cargo test
//! ```

pub mod claim;
pub mod connection;
pub mod group;
pub mod guide;
pub mod person;
pub mod relay;

use std::time::Duration;

/// Longest wait before a test fails. A loaded machine needs far less.
pub const WAIT: Duration = Duration::from_secs(30);

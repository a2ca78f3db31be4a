//! Real engines for tests and benchmarks, and a proxy to cut them off.
//!
//! Each engine is a process of this machine, on a free port of 127.0.0.1 and in a temporary folder. It ends when its
//! value is dropped, and also when the process that started it dies in any way. Engines that are slow to start are
//! shared: by the tests of one binary through `shared()`, or by all tests of a run through the variables that the
//! program `rnostr-test-engines` prints.
//!
//! A test that needs an engine asks for it first:
//!
//! ```no_run
//! use rnostr_test_services::{Postgres, require};
//!
//! let Some(()) = require(Postgres::shared_available()) else { return };
//! let url = Postgres::shared().create_database();
//! ```

mod emulator;
mod engine;
mod faketime;
mod folder;
mod port;
mod postgres;
mod process;
mod programs;
mod prometheus;
mod proxy;
mod redis;
mod url;

use std::{
    io::Write as _,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

pub use self::{
    emulator::FirestoreEmulator,
    faketime::Faketime,
    postgres::{Options, Postgres, Tls},
    prometheus::Prometheus,
    proxy::{Proxy, Side},
    redis::Redis,
};

/// Variable that is `true` on CI machines. A missing engine then fails the test.
const CI: &str = "CI";
/// Variable that asks for the same with `1` on any machine.
const REQUIRE: &str = "RNOSTR_TEST_REQUIRE_ENGINES";

/// Unwraps the engine that a test needs. An error is written to standard error, and `None` tells the test to return.
///
/// # Panics
/// When the engine is missing and the environment says `CI=true` or `RNOSTR_TEST_REQUIRE_ENGINES=1`.
pub fn require<T>(needed: Result<T, String>) -> Option<T> {
    let why = match needed {
        Ok(there) => return Some(there),
        Err(why) => why,
    };
    assert!(!is_set(CI, "true") && !is_set(REQUIRE, "1"), "{why}");
    let thread = std::thread::current();
    // The test runner hides the output of `eprintln!` when a test passes.
    let _ = writeln!(std::io::stderr(), "!! NOT RUN: {}: {why}", thread.name().unwrap_or("this"));
    None
}

/// A name that no other caller on this machine gets, to keep one test's data apart in a shared engine: `prefix`, and
/// then at most 24 lower-case letters and digits.
pub fn unique(prefix: &str) -> String {
    static STARTED: LazyLock<u128> = LazyLock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis())
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}{:x}x{:x}x{:x}", std::process::id(), *STARTED, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn is_set(variable: &str, value: &str) -> bool {
    std::env::var(variable).is_ok_and(|set| set == value)
}

/// The address of a running engine, if the environment names one.
fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

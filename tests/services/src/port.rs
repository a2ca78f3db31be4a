//! Free ports.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::{Ipv4Addr, TcpListener},
};

/// First of the ports to choose from. They lie below the ports that systems give to outgoing connections, so that an
/// engine that is down for a moment finds its own port still free.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;
const ATTEMPTS_MAX: usize = 1_000;

/// A port of 127.0.0.1 on which nothing listens.
///
/// # Panics
/// When there is no such port.
pub(crate) fn free() -> u16 {
    let found = (0..ATTEMPTS_MAX).map(|_| FIRST + random() % COUNT).find(|&port| is_free(port));
    found.expect("of so many ports one is free")
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[expect(clippy::cast_possible_truncation, reason = "any bits do")]
fn random() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

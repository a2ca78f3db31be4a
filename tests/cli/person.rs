//! A person with a key, who runs commands against a relay.

use std::{fs, process::Command};

use nostr_protocol::{Event, Unverified, hex, key::to_bech32, testing};
use secp256k1::Keypair;

use super::{
    run::{Ran, command, run},
    server::Relay,
};

/// See the module.
pub(crate) struct Person {
    name: &'static str,
    pub(crate) keys: Keypair,
}

impl Person {
    /// The person of this name, who always has the same key.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, keys: testing::keypair(name) }
    }

    /// Four people: an admin of the relay by [`admin_of`], and others.
    pub(crate) fn some() -> [Self; 4] {
        ["admin", "alice", "bob", "eve"].map(Self::new)
    }

    pub(crate) fn hex(&self) -> String {
        testing::public_key(&self.keys).to_hex()
    }

    pub(crate) fn npub(&self) -> String {
        testing::public_key(&self.keys).to_npub()
    }

    pub(crate) fn secret_hex(&self) -> String {
        hex::to_hex(&self.keys.to_secret_bytes())
    }

    pub(crate) fn nsec(&self) -> String {
        to_bech32("nsec", &self.keys.to_secret_bytes())
    }

    /// The command with this person's key in a file.
    pub(crate) fn command(&self, relay: &Relay, words: &[&str]) -> Command {
        let file = format!("{}.key", self.name);
        fs::write(relay.directory.path().join(&file), self.nsec()).expect("it is written");
        command(relay.directory.path(), &[words, &["--relay", &relay.url, "--key-file", &file]].concat())
    }

    /// Runs a command with this person's key. The secret must not be in its output.
    #[track_caller]
    pub(crate) fn runs(&self, relay: &Relay, words: &[&str]) -> Ran {
        self.keeps_secret(run(&mut self.command(relay, words)))
    }

    /// Asserts that the secret is not in the output.
    #[track_caller]
    pub(crate) fn keeps_secret(&self, ran: Ran) -> Ran {
        for secret in [self.secret_hex(), self.nsec()] {
            assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "the secret is in the output");
        }
        ran
    }
}

/// Runs a command without a key.
pub(crate) fn anonymous(relay: &Relay, words: &[&str]) -> Ran {
    run(&mut command(relay.directory.path(), &[words, &["--relay", &relay.url]].concat()))
}

/// The sections of a configuration in which the admin is an admin key, with AUTH before all else or without.
pub(crate) fn admin_of(needs_auth: bool) -> String {
    let admin = Person::new("admin").hex();
    format!("[auth]\nenabled = {needs_auth}\n[extensions.mls_gateway]\nadmin_pubkeys = [\"{admin}\"]\n")
}

/// The events of an output, one a line.
#[track_caller]
pub(crate) fn events(out: &str) -> Vec<Event> {
    let read = |line: &str| Unverified::parse(line.as_bytes()).and_then(Unverified::verify);
    out.lines().map(|line| read(line).expect("an event").into_event()).collect()
}

/// The contents of the events of an output.
#[track_caller]
pub(crate) fn contents(out: &str) -> Vec<String> {
    events(out).iter().map(Event::content).collect()
}

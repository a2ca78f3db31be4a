//! `rnostr invite`: makes an invitation, which a stranger adds to its event as a tag.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nostr_protocol::{
    DAY_SECS, PublicKey,
    invitation::{Invitation, InvitedTo},
    sign::SecretKey,
};
use nostr_relay::config;

/// The variable that holds the inviting key.
const KEY_VARIABLE: &str = "INVITATION_KEY";
/// Longest life of an invitation, in days.
const DAYS_MAX: u64 = 3_650;

/// Make an invitation for a key: a tag for its events
///
/// The inviting key is read from --key-file, or from the variable INVITATION_KEY: hex or nsec. The relay takes the
/// invitation if its public half is one of strangers.invitation_pubkeys, or for an inbox if the key owns that inbox.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rnostr invite --to group --for npub1… --days 7 --key-file host.key")]
pub(super) struct Invite {
    /// The act: `group` lets the key found groups, `inbox` lets anyone who has the tag send it gift wraps
    #[arg(long, value_name = "ACT", value_parser = act)]
    to: InvitedTo,
    /// The key that is invited, or that owns the inbox; hex or npub
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    r#for: PublicKey,
    /// Days for which the invitation holds
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
    days: u64,
    /// A file with the inviting key, as `rnostr keygen --out` writes it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

fn act(text: &str) -> Result<InvitedTo, String> {
    let known = InvitedTo::ALL.into_iter().find(|to| to.as_str() == text);
    known.ok_or_else(|| "write group or inbox".to_owned())
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex_or_npub(text).map_err(|error| error.to_string())
}

impl Invite {
    pub(super) fn run(self) -> Result<(), String> {
        let key = match &self.key_file {
            Some(path) => of_file(path)?,
            None => of_variable()?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let tag = Invitation::new(&key, self.to, &self.r#for, now + self.days * DAY_SECS).tag();
        // Words, digits and hex need no escapes.
        let tag = format!("[\"{}\"]\n", tag.join("\",\""));
        io::stdout().lock().write_all(tag.as_bytes()).map_err(|error| format!("cannot write: {error}"))
    }
}

fn of_file(path: &Path) -> Result<SecretKey, String> {
    let failed = |what: &str| format!("--key-file {}: {what}", path.display());
    let text = fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
    SecretKey::from_file_text(&text).ok_or_else(|| failed("no secret key; write 64 hex digits or nsec1… into it"))
}

fn of_variable() -> Result<SecretKey, String> {
    let found = config::process_environment().find(|(name, _)| name == KEY_VARIABLE);
    let (_, text) = found.ok_or_else(|| format!("name the inviting key: --key-file FILE, or {KEY_VARIABLE}"))?;
    let wrong = || format!("{KEY_VARIABLE}: no secret key; write 64 hex digits or nsec1…");
    SecretKey::from_hex_or_nsec(text.trim()).ok_or_else(wrong)
}

//! `rnostr group`: a managed group, as its members and the relay's admin keys see it.

mod replay;
mod view;

use std::io::{self, Write as _};

use nostr_extensions::{NostrGroupId, Role};
use nostr_protocol::sign::SecretKey;
use serde_json::json;

pub(super) use self::view::{View, look};
use super::{
    address::Address,
    client::{self, Client, Connection, text},
    moving::now,
};

/// Show a group: its members and their roles, epoch, source, roster sequence and last activity
///
/// The relay shows a group to its members and to admin keys. Messages are for members alone, so an admin key that is
/// no member sees the last roster as the last activity.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rnostr group grp_abc123 --relay wss://relay.example.com --key-file my.key")]
pub(super) struct Group {
    /// The group's id: its `h` on Nostr
    #[arg(value_name = "GROUP")]
    group: String,
    #[command(flatten)]
    connection: Connection,
}

impl Group {
    pub(super) fn run(self) -> Result<(), String> {
        let group = group_id(&self.group)?;
        let (relay, key) = (self.connection.relay()?, self.connection.signing_key()?);
        client::run(async {
            let view = look(&relay, &key, &group).await?.ok_or_else(|| hidden(&relay, &key))?;
            let activity = last_activity(&relay, &key, &group).await?;
            // A reader that has seen enough (`| head`) is no failure.
            let _ = io::stdout().lock().write_all(lines(&group, &view, &activity, now()).as_bytes());
            Ok(())
        })
    }
}

/// Reads a group's id.
///
/// # Errors
/// The text is none.
pub(super) fn group_id(text: &str) -> Result<NostrGroupId, String> {
    NostrGroupId::parse(text).ok_or_else(|| {
        "GROUP: an id has 1 to 128 characters of A-Z a-z 0-9 _ . : -, the first of them a letter or a digit".to_owned()
    })
}

/// The words for a group that the relay does not show.
pub(super) fn hidden(relay: &Address, key: &SecretKey) -> String {
    format!(
        "{} shows no such group to {}: it does not exist, or is unlisted, or this key is neither a member nor an admin \
         key of the relay",
        relay.url,
        key.public()
    )
}

/// The newest message or roster that the key may read, in words.
async fn last_activity(relay: &Address, key: &SecretKey, group: &NostrGroupId) -> Result<String, String> {
    let filter = json!({"kinds": [445, 450], "#h": [group.as_str()], "limit": 1});
    let found = Client::open(relay, Some(key)).await?.stored("activity", &[filter]).await?;
    Ok(match found {
        Err(reason) => format!("unknown: {reason}"),
        Ok(stored) => match stored.events.first() {
            None => "none that is kept and that this key may read".to_owned(),
            Some(event) => {
                let sort = if event.kind() == nostr_protocol::Kind::ROSTER { "a roster" } else { "a message" };
                let at = event.created_at();
                format!("{} ({}), {sort}", text::time(at), text::distance(at, now()))
            }
        },
    })
}

fn lines(group: &NostrGroupId, view: &View, activity: &str, now: u64) -> String {
    let unknown = || "unknown".to_owned();
    let source = match view.source.as_deref() {
        Some("roster") => "rosters",
        Some("giftwrap") => "gift wraps",
        Some("acl") => "the access service",
        Some(other) => other,
        None => "unknown",
    };
    let founded =
        view.created_at.map_or_else(unknown, |at| format!("{} ({})", text::time(at), text::distance(at, now)));
    let count = view.members.as_ref().map_or_else(unknown, |members| members.len().to_string());
    let mut lines = format!("group     {}\n", group.as_str());
    for (name, value) in [
        ("name", view.name.clone().unwrap_or_else(|| "none".to_owned())),
        ("source", source.to_owned()),
        ("sequence", view.seq.to_string()),
        ("epoch", view.epoch.map_or_else(|| "none seen".to_owned(), |epoch| epoch.to_string())),
        ("founded", founded),
        ("activity", activity.to_owned()),
        ("members", count),
    ] {
        lines += &format!("{name:<9} {value}\n");
    }
    for (key, role) in view.members.iter().flatten() {
        lines += &format!("  {:<7} {key}\n", role_name(*role));
    }
    if let Some(remark) = &view.remark {
        lines += &format!("{remark}\n");
    }
    lines
}

/// The word of a roster for a role.
pub(super) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

//! `rnostr roster`: changes the members of a group by a roster (kind 450) with the next sequence number.
//!
//! Source: docs/rules.md, "Rosters". The command never repeats a roster by itself with a later number: the change was
//! meant for the members that were there before.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use nostr_extensions::{
    NostrGroupId,
    mls_gateway::group::{ROSTER_KEYS_MAX, SEQ_MAX},
};
use nostr_protocol::{Event, Kind, PublicKey, sign::SecretKey};

use super::{
    address::Address,
    client::{self, Client, Connection, Draft, public_key, sign, text},
    group::{View, group_id, hidden, look, role_name},
};

/// Change the members of a group by a signed roster (kind 450)
///
/// Reads the group's sequence, signs a roster with the next number, sends it, and says what changed or why the relay
/// refused. The relay takes rosters of its admin keys and of the group's admins; a member may remove itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    rnostr roster grp_abc123 bootstrap npub1… npub1… --name 'Book club' \\\n    \
    --relay wss://relay.example.com --key-file admin.key\n  \
    rnostr roster grp_abc123 add npub1… --dry-run --relay wss://relay.example.com --key-file admin.key")]
pub(super) struct Roster {
    /// The group's id: its `h` on Nostr
    #[arg(value_name = "GROUP")]
    group: String,
    /// The change
    #[arg(value_enum, value_name = "CHANGE")]
    op: Op,
    /// Keys of people: 64 hex digits or npub1…
    #[arg(value_name = "PUBKEY")]
    people: Vec<String>,
    #[command(flatten)]
    connection: Connection,
    /// The role of all keys named that become members; without it they are plain members. Present members keep theirs
    #[arg(long, value_enum)]
    role: Option<RoleWord>,
    /// Give the group a name for people
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// With reset-epoch: the epoch from which on commits count
    #[arg(long, value_name = "NUMBER")]
    epoch: Option<u64>,
    /// With replace, by an admin key of the relay: take over an unlisted group, or found one
    #[arg(long)]
    force: bool,
    /// Print the signed roster as one line of JSON, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// A change, by the word of the `op` tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Op {
    /// Found the group with these members
    Bootstrap,
    /// Add members
    Add,
    /// Remove members
    Remove,
    /// Make members group admins
    Promote,
    /// Make group admins plain members
    Demote,
    /// Set the list of members
    Replace,
    /// Set the epoch of the order of commits
    ResetEpoch,
}

impl Op {
    const fn word(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Replace => "replace",
            Self::ResetEpoch => "reset-epoch",
        }
    }

    const fn takes_role(self) -> bool {
        matches!(self, Self::Bootstrap | Self::Add | Self::Replace)
    }
}

/// A role, by the word of the `role` tag.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleWord {
    Member,
    Admin,
}

impl Roster {
    pub(super) fn run(self) -> Result<(), String> {
        let group = group_id(&self.group)?;
        let people = self.people()?;
        let (relay, key) = (self.connection.relay()?, self.connection.signing_key()?);
        client::run(async {
            let before = look(&relay, &key, &group).await?;
            let founds = self.op == Op::Bootstrap || (self.op == Op::Replace && self.force);
            if before.is_none() && !founds {
                return Err(hidden(&relay, &key));
            }
            let seq = before.as_ref().map_or(0, |view| view.seq).saturating_add(1);
            if seq > SEQ_MAX {
                return Err(format!("the group's sequence is at its end, {SEQ_MAX}"));
            }
            let roster = sign(&self.draft(&group, seq, &people), &key)?;
            if self.dry_run {
                return say(&format!("{}\n", text::json_line(&roster.json())));
            }
            let scene = Scene { relay: &relay, key: &key, group: &group };
            scene.send(&roster, seq, before.as_ref()).await
        })
    }

    /// The named keys, each once.
    fn people(&self) -> Result<BTreeSet<PublicKey>, String> {
        let people: BTreeSet<PublicKey> =
            self.people.iter().map(|text| public_key("PUBKEY", text)).collect::<Result<_, _>>()?;
        let op = self.op.word();
        match (self.op == Op::ResetEpoch, people.len()) {
            (true, 1..) => Err(format!("{op} changes no member; leave the keys out")),
            (false, 0) => Err(format!("{op} names at least one key: 64 hex digits or npub1…")),
            (false, count) if count > ROSTER_KEYS_MAX => {
                Err(format!("a roster names at most {ROSTER_KEYS_MAX} keys; send several"))
            }
            _ if (self.op == Op::ResetEpoch) != self.epoch.is_some() => {
                Err("--epoch belongs to reset-epoch, which needs it".to_owned())
            }
            _ if self.role.is_some() && !self.op.takes_role() => {
                Err(format!("--role is for bootstrap, add and replace; {op} takes none"))
            }
            _ if self.force && self.op != Op::Replace => Err("--force is for replace".to_owned()),
            _ => Ok(people),
        }
    }

    fn draft(&self, group: &NostrGroupId, seq: u64, people: &BTreeSet<PublicKey>) -> Draft {
        let mut draft = Draft::new(Kind::ROSTER)
            .tag(&["h", group.as_str()])
            .tag(&["seq", &seq.to_string()])
            .tag(&["op", self.op.word()]);
        for key in people {
            draft = draft.tag(&["p", &key.to_hex()]);
        }
        if let Some(role) = self.role {
            draft = draft.tag(&[
                "role",
                match role {
                    RoleWord::Member => "member",
                    RoleWord::Admin => "admin",
                },
            ]);
        }
        if let Some(name) = &self.name {
            draft = draft.tag(&["name", name]);
        }
        if let Some(epoch) = self.epoch {
            draft = draft.tag(&["epoch", &epoch.to_string()]);
        }
        if self.force { draft.tag(&["force", "true"]) } else { draft }
    }
}

/// A group at a relay, and the key that changes it.
struct Scene<'a> {
    relay: &'a Address,
    key: &'a SecretKey,
    group: &'a NostrGroupId,
}

impl Scene<'_> {
    async fn send(&self, roster: &Event, seq: u64, before: Option<&View>) -> Result<(), String> {
        let Self { relay, key, group } = self;
        let mut client = Client::open(relay, Some(key)).await?;
        let answer = client.publish(roster).await;
        let answer = answer.map_err(|why| {
            format!("{why}; whether roster {seq} is in force is not known, so look at it with `rnostr group`")
        })?;
        if !answer.accepted {
            let again = if answer.reason.contains(" is not above ") {
                "; somebody else changed the group: look at it with `rnostr group`, and repeat what is still wanted"
            } else {
                ""
            };
            return Err(format!("{} refuses roster {seq}: {}{again}", relay.url, answer.reason));
        }
        let accepted = format!("roster {seq} of {} is accepted: event {}\n", group.as_str(), roster.id());
        say(&accepted)?;
        let after = look(relay, key, group).await;
        let after = after.map_err(|why| format!("roster {seq} is in force; the members cannot be shown: {why}"))?;
        say(&changes(before, after.as_ref()))
    }
}

/// The difference between two states, a line for each key.
fn changes(before: Option<&View>, after: Option<&View>) -> String {
    let Some(after) = after else { return "This key no longer sees the group.\n".to_owned() };
    let Some(now) = &after.members else { return "The members are not known here.\n".to_owned() };
    let none = std::collections::BTreeMap::new();
    let was = match before {
        None => &none,
        Some(view) => match &view.members {
            Some(members) => members,
            None => return format!("The group has {}.\n", text::count(now.len(), "member")),
        },
    };
    let mut lines = String::new();
    for (key, role) in now {
        let role_word = role_name(*role);
        match was.get(key) {
            None => lines += &format!("  joins as {role_word:<7} {key}\n"),
            Some(former) if former != role => lines += &format!("  is now {role_word:<9} {key}\n"),
            Some(_) => {}
        }
    }
    for key in was.keys().filter(|key| !now.contains_key(*key)) {
        lines += &format!("  leaves           {key}\n");
    }
    if lines.is_empty() {
        lines += "  no member changes\n";
    }
    lines + &format!("The group has {}.\n", text::count(now.len(), "member"))
}

/// Prints; a reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot write: {error}")),
        _ => Ok(()),
    }
}

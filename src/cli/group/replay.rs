//! The members of a group as its rosters made them, one after the other by `seq`.
//!
//! Source: docs/rules.md, "Rosters" 5 and "Registry" 2. The relay stores accepted rosters alone, so none is refused
//! here.

use nostr_extensions::Role;
use nostr_protocol::{Event, PublicKey, tag::name};

use super::view::Members;

/// The state after the last roster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The highest `seq`.
    pub(super) seq: u64,
    /// The name that the last roster with a name gave.
    pub(super) name: Option<String>,
    /// The members; `None` where no roster states all of them.
    pub(super) members: Option<Members>,
}

/// Replays rosters in the order of their `seq`; `None` if there are none.
pub(super) fn replay(events: &[Event]) -> Option<Replayed> {
    let seq = |event: &Event| event.tags().value(name::SEQ).and_then(|seq| seq.parse::<u64>().ok());
    let mut rosters: Vec<(u64, &Event)> = events.iter().filter_map(|event| Some((seq(event)?, event))).collect();
    rosters.sort_by_key(|(seq, _)| *seq);
    let mut state = Replayed { seq: rosters.last()?.0, name: None, members: None };
    for (_, roster) in rosters {
        state.apply(roster);
    }
    Some(state)
}

impl Replayed {
    fn apply(&mut self, roster: &Event) {
        let tags = roster.tags();
        let keys: Vec<PublicKey> = tags.values(name::PUBLIC_KEY).filter_map(PublicKey::from_hex).collect();
        let role = tags.value(name::ROLE).and_then(Role::parse).unwrap_or(Role::Member);
        if let Some(given) = tags.value(name::NAME).filter(|name| !name.is_empty()) {
            self.name = Some(given.to_owned());
        }
        match (tags.value(name::OP), &mut self.members) {
            (Some("bootstrap"), members) => {
                *members = Some(keys.into_iter().map(|key| (key, role)).collect());
            }
            // Present members keep their roles; without the state before, those roles are unknown.
            (Some("replace"), Some(members)) => {
                let kept = |key: PublicKey| (key, members.get(&key).copied().unwrap_or(role));
                *members = keys.into_iter().map(kept).collect();
            }
            (Some("add"), Some(members)) => {
                for key in keys {
                    members.entry(key).or_insert(role);
                }
            }
            (Some("remove"), Some(members)) => members.retain(|key, _| !keys.contains(key)),
            (Some("promote"), Some(members)) => set_role(members, &keys, Role::Admin),
            (Some("demote"), Some(members)) => set_role(members, &keys, Role::Member),
            _ => {}
        }
    }
}

fn set_role(members: &mut Members, keys: &[PublicKey], role: Role) {
    for key in keys {
        if let Some(present) = members.get_mut(key) {
            *present = role;
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    fn hex(who: &str) -> String {
        EventBuilder::new(1).event(&keypair(who)).pubkey().to_hex()
    }

    fn roster(seq: u64, op: &str, who: &[&str], role: &str) -> Event {
        let seq = seq.to_string();
        let mut roster = EventBuilder::new(450).tag(&["h", "grp"]).tag(&["seq", &seq]).tag(&["op", op]);
        for who in who {
            roster = roster.tag(&["p", &hex(who)]);
        }
        if !role.is_empty() {
            roster = roster.tag(&["role", role]);
        }
        roster.event(&keypair("admin"))
    }

    fn roles(events: &[Event], who: &[&str]) -> Vec<Option<Role>> {
        let members = replay(events).expect("rosters").members.expect("members");
        who.iter().map(|who| members.get(&PublicKey::from_hex(&hex(who)).expect("hex")).copied()).collect()
    }

    #[test]
    fn rosters_are_replayed_by_their_numbers() {
        let (admin, member) = (Some(Role::Admin), Some(Role::Member));
        let mut events = vec![
            roster(9, "remove", &["bob"], ""),
            roster(1, "bootstrap", &["alice"], "admin"),
            roster(2, "add", &["alice", "bob", "carol"], ""),
            roster(5, "promote", &["carol"], ""),
        ];
        assert_eq!(roles(&events, &["alice", "bob", "carol"]), [admin, None, admin]);
        events.push(roster(10, "demote", &["alice"], ""));
        events.push(roster(11, "reset-epoch", &[], ""));
        assert_eq!(roles(&events, &["alice", "bob", "carol"]), [member, None, admin]);
        events.push(roster(20, "replace", &["carol", "dave"], "member"));
        assert_eq!(roles(&events, &["alice", "carol", "dave"]), [None, admin, member]);
        assert_eq!(replay(&events).map(|it| it.seq), Some(20));
    }

    #[test]
    fn members_are_unknown_without_the_first_roster() {
        let events = [roster(7, "add", &["bob"], ""), roster(8, "replace", &["bob"], "")];
        assert_eq!(replay(&events), Some(Replayed { seq: 8, name: None, members: None }));
        assert_eq!(replay(&[]), None);
    }
}

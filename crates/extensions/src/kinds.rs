//! The table of kinds: all that the relay believes about a kind, in one place.
//!
//! The file of a kind holds its answers ([`KindRules`]) as `RULES`, and this table has one line for it. Every other
//! part of the relay that treats kinds differently (the gate, the stores' indexes, live delivery, rate limits, metrics,
//! NIP-11) asks [`rules`]. Elsewhere the code names kinds for AUTH, the directory and the consumption of KeyPackages,
//! the gift wraps that change groups, rosters and messages of another relay, requests to vanish in the log, the events
//! that a full store still takes, and the lists of relays by which inboxes are found and ask for proofs.
//!
//! Source: docs/rules.md, "Who may publish, who may read".
//!
//! A new kind takes its number in `nostr_protocol::Kind`, a file with its rules and its check, and a line here.
//! ARCHITECTURE.md, "Where a change goes", lists every file that it touches.

pub(crate) mod any;
mod auth;
mod encrypted_dm;
mod kind_rules;
mod repost;

use nostr_protocol::Kind;

pub(crate) use self::kind_rules::Publication;
pub use self::kind_rules::{
    Budget, Deletable, GroupChange, Kept, KindCounter, KindRules, NonResidents, Owners, Quota, Readers,
};
use crate::mls_gateway;

/// Makes the list of kinds and the function that finds a kind's rules out of the same lines.
macro_rules! table {
    ($($kind:ident => $rules:path,)*) => {
        /// The kinds with rules of their own, by number.
        pub const KINDS: &[Kind] = &[$(Kind::$kind),*];

        /// The rules of a kind: its own, or those of every kind of its range (NIP-01).
        #[must_use]
        pub const fn rules(kind: Kind) -> &'static KindRules {
            match kind {
                $(Kind::$kind => &$rules,)*
                _ => any::rules(kind.lifetime()),
            }
        }
    };
}

table! {
    ENCRYPTED_DM => encrypted_dm::RULES,
    DELETION => mls_gateway::deletion::RULES,
    REPOST => repost::RULES,
    SEAL => mls_gateway::welcome::RULES,
    GENERIC_REPOST => repost::RULES,
    VANISH => mls_gateway::vanish::RULES,
    KEY_PACKAGE => mls_gateway::key_package::RULES,
    WELCOME => mls_gateway::welcome::RULES,
    GROUP_MESSAGE => mls_gateway::group_message::RULES,
    NOISE_DM => mls_gateway::noise_dm::RULES,
    KEY_PACKAGE_REQUEST => mls_gateway::key_package_request::RULES,
    INNER_448 => mls_gateway::welcome::RULES,
    INNER_449 => mls_gateway::welcome::RULES,
    ROSTER => mls_gateway::roster::RULES,
    INNER_451 => mls_gateway::welcome::RULES,
    GIFT_WRAP => mls_gateway::gift_wrap::RULES,
    EPHEMERAL_GIFT_WRAP => mls_gateway::gift_wrap::EPHEMERAL_RULES,
    AUTH => auth::RULES,
    HTTP_AUTH => auth::HTTP_RULES,
    ADDRESSABLE_KEY_PACKAGE => mls_gateway::key_package::RULES,
}

/// Stored kinds of which some event is for named keys, by number.
pub const KEY_KINDS: [Kind; count(Selection::ForKeys)] = select(Selection::ForKeys);
/// Kinds whose events belong to a group, by number.
pub const GROUP_KINDS: [Kind; count(Selection::ForGroups)] = select(Selection::ForGroups);
/// Kinds that the relay's admin keys read in every group, by number.
pub const ADMIN_KINDS: [Kind; count(Selection::ForAdminKeys)] = select(Selection::ForAdminKeys);
/// Kinds whose events belong to their recipients too, by number.
pub const OWNED_BY_RECIPIENTS: [Kind; count(Selection::OwnedByRecipients)] = select(Selection::OwnedByRecipients);
/// Kinds whose events stay when their author vanishes, by number.
pub const KEPT_FROM_VANISHED: [Kind; count(Selection::KeptFromVanished)] = select(Selection::KeptFromVanished);

/// Conditions of the lists above, which are made while compiling.
#[derive(Clone, Copy)]
enum Selection {
    ForKeys,
    ForGroups,
    ForAdminKeys,
    OwnedByRecipients,
    KeptFromVanished,
}

impl Selection {
    const fn takes(self, rules: &KindRules) -> bool {
        match self {
            Self::ForKeys => rules.may_be_for_keys() && !matches!(rules.kept, Kept::Ephemeral),
            Self::ForGroups => rules.is_for_group(),
            Self::ForAdminKeys => rules.is_for_admin_keys(),
            Self::OwnedByRecipients => rules.is_owned_by_recipients(),
            Self::KeptFromVanished => !rules.vanishes,
        }
    }
}

const fn count(selection: Selection) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < KINDS.len() {
        if selection.takes(rules(KINDS[at])) {
            count += 1;
        }
        at += 1;
    }
    count
}

const fn select<const COUNT: usize>(selection: Selection) -> [Kind; COUNT] {
    let mut selected = [Kind(0); COUNT];
    let (mut at, mut count) = (0, 0);
    while at < KINDS.len() {
        if selection.takes(rules(KINDS[at])) {
            selected[count] = KINDS[at];
            count += 1;
        }
        at += 1;
    }
    selected
}

/// The kinds of the table that pass `test`, in words: `5, 62 and 450`.
pub(crate) fn in_words(test: impl Fn(&KindRules) -> bool) -> String {
    let kinds: Vec<String> = KINDS.iter().filter(|kind| test(rules(**kind))).map(Kind::to_string).collect();
    match kinds.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => kinds.concat(),
    }
}

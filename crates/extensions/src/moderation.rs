//! The operator's orders about single keys, events and kinds, as the rules read them.
//!
//! Source: NIP-86; docs/rules.md, "Management". A ban holds wherever an event is admitted ([`crate::admit`]) or read
//! ([`crate::Gate`]), and nowhere else.

use std::collections::HashSet;

use nostr_protocol::{Event, EventId, Kind, PublicKey, Rejection, Rule, UnixSecs};

use crate::{
    effect::NEVER,
    gate::Hidden,
    kinds::{Kept, Publication, Quota, rules},
    policy::{KeptFor, KindRange, Policy, QuotaBounds, Retention},
    reader::Reader,
    strangers::INBOX_LIST,
};

/// The rules of the orders over NIP-86.
pub(crate) const ORDERS: Rule = Rule("Management", 2);
pub(crate) const BANNED_KEYS: Rule = Rule("Management", 3);
pub(crate) const BANNED_EVENTS: Rule = Rule("Management", 6);
/// Replaceable kinds by which others find a person: profile, contacts, and the lists of relays (NIP-65, NIP-17). They
/// count against no quota, so that each can be replaced at any time. A key has one event of each.
const LISTS_OF_PEOPLE: [Kind; 4] = [Kind(0), Kind(3), Kind(10_002), INBOX_LIST];
/// The text for a banned key.
pub(crate) const BANNED_KEY: &str = "this key is banned from this relay";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moderation {
    /// Set while the store has not told the orders. Nothing is admitted or served then.
    pub is_unknown: bool,
    /// Keys that neither publish nor read. An admin key among them counts as not banned.
    pub banned_keys: HashSet<PublicKey>,
    /// Events that are neither taken nor served.
    pub banned_events: HashSet<EventId>,
    /// Residents beside those of the configuration, where it has a list.
    pub allowed_keys: HashSet<PublicKey>,
    /// Kinds beside those of the configuration, where it has a list.
    pub allowed_kinds: HashSet<Kind>,
    /// Kinds that are not taken, whatever the configuration says.
    pub refused_kinds: HashSet<Kind>,
}

impl Policy {
    /// Whether `key` is banned. An admin key never is, so that the operator cannot be locked out.
    #[must_use]
    pub fn is_banned(&self, key: &PublicKey) -> bool {
        let banned = &self.moderation.banned_keys;
        !banned.is_empty() && banned.contains(key) && !self.is_admin(key)
    }

    /// Whether one of the reader's keys is banned.
    #[must_use]
    pub fn is_banned_reader(&self, reader: &Reader) -> bool {
        reader.keys().iter().any(|key| self.is_banned(key))
    }

    /// The order by which this reader is not served an event. A ban of its author leaves the events of groups, which
    /// the other members need ("Deletion" 2).
    pub(crate) fn hides(&self, event: &Event, reader: &Reader) -> Option<Hidden> {
        let banned = &self.moderation.banned_events;
        if self.moderation.is_unknown {
            Some(Hidden::OrdersUnknown)
        } else if !banned.is_empty() && banned.contains(&event.id()) {
            Some(Hidden::BannedEvent)
        } else if self.is_banned(&event.pubkey()) && !rules(event.kind()).is_for_group() {
            Some(Hidden::BannedAuthor)
        } else {
            self.is_banned_reader(reader).then_some(Hidden::BannedReader)
        }
    }

    /// Whether events of this kind are taken. Deletions and requests to vanish always are.
    #[must_use]
    pub fn takes_kind(&self, kind: Kind) -> bool {
        let moderation = &self.moderation;
        let is_listed = || match &self.kinds {
            None => true,
            Some(kinds) => kinds.iter().any(|range| range.holds(kind)) || moderation.allowed_kinds.contains(&kind),
        };
        takes_back(kind) || (!moderation.refused_kinds.contains(&kind) && is_listed())
    }

    /// Refuses an event that the operator takes from nobody, or not from this reader. A banned author may still take
    /// back its own events, as long as it need not authenticate for that.
    ///
    /// # Errors
    /// `blocked:`, or `error:` while the orders are not known.
    pub(crate) fn moderate(&self, event: &Event, reader: &Reader) -> Result<(), Rejection> {
        self.require_orders()?;
        let is_banned = self.is_banned(&event.pubkey()) && !takes_back(event.kind());
        if is_banned || self.is_banned_reader(reader) {
            return Err(Rejection::blocked(BANNED_KEY).under(BANNED_KEYS));
        }
        if self.moderation.banned_events.contains(&event.id()) {
            return Err(Rejection::blocked("this event is banned from this relay").under(BANNED_EVENTS));
        }
        if !self.takes_kind(event.kind()) {
            let refusal = Rejection::blocked(format!("this relay takes no events of kind {}", event.kind().0));
            return Err(refusal.under(Rule("Management", 8)));
        }
        Ok(())
    }

    /// Refuses everything until the orders over NIP-86 are known.
    ///
    /// # Errors
    /// `error:`.
    pub fn require_orders(&self) -> Result<(), Rejection> {
        if self.moderation.is_unknown {
            let text = "this relay has not read its operator's orders yet; try again in a second";
            return Err(Rejection::error(text).under(ORDERS));
        }
        Ok(())
    }

    /// End of an event of which the rules of its kind say none, received `now`.
    pub(crate) fn retained_until(&self, kind: Kind, now: UnixSecs) -> UnixSecs {
        self.retention_of(kind).map_or(NEVER, |secs| now.saturating_add(secs))
    }

    /// Seconds for which the operator's rules keep an event of which the rules of its kind say no end; `None` without
    /// end.
    fn retention_of(&self, kind: Kind) -> Option<u64> {
        let rule = self.retention.iter().find(|rule| rule.kinds.holds(kind));
        rule.filter(|_| !takes_back(kind)).map(|rule| rule.secs)
    }

    /// The quota against which an event counts that the relay keeps without end, as far as the operator and the kind
    /// say. An `expiration` that its author chose changes nothing: it may lie a thousand years ahead.
    #[must_use]
    pub fn quota_of(&self, kind: Kind) -> Option<Quota> {
        rules(kind).quota.filter(|_| self.retention_of(kind).is_none() && !LISTS_OF_PEOPLE.contains(&kind))
    }

    /// The quota that bounds events of this kind and author, and its bounds; `None` where none does.
    #[must_use]
    pub fn quota_for(&self, author: &PublicKey, kind: Kind) -> Option<(Quota, QuotaBounds)> {
        let is_bounded = self.quota != QuotaBounds::default() && !self.is_named(author);
        self.quota_of(kind).filter(|_| is_bounded).map(|quota| (quota, self.quota))
    }

    /// The kinds for which each rule of `[retention]` counts, of those whose events are taken and would be kept without
    /// end.
    #[must_use]
    pub fn retention_told(&self) -> Vec<KeptFor> {
        let of_rule = |rule: &Retention| KeptFor { kinds: Vec::new(), secs: rule.secs };
        let mut told: Vec<KeptFor> = self.retention.iter().map(of_rule).collect();
        for number in 0..=u16::MAX {
            let kind = Kind(number);
            let rule = self.retention.iter().position(|rule| rule.kinds.holds(kind));
            let Some(rule) = rule.filter(|_| self.takes_kind(kind) && !takes_back(kind) && has_no_end(kind)) else {
                continue;
            };
            match told[rule].kinds.last_mut() {
                Some(range) if range.last.checked_add(1) == Some(number) => range.last = number,
                _ => told[rule].kinds.push(KindRange { first: number, last: number }),
            }
        }
        told.retain(|rule| !rule.kinds.is_empty());
        told
    }
}

/// Whether the rules of a kind keep its events, and name no end for them. The check of such a kind gives [`NEVER`].
fn has_no_end(kind: Kind) -> bool {
    let ends = matches!(
        kind,
        Kind::KEY_PACKAGE
            | Kind::ADDRESSABLE_KEY_PACKAGE
            | Kind::GROUP_MESSAGE
            | Kind::NOISE_DM
            | Kind::KEY_PACKAGE_REQUEST
            | Kind::ROSTER
            | Kind::GIFT_WRAP
    );
    let rules = rules(kind);
    !ends && rules.kept == Kept::Stored && matches!(rules.publication, Publication::Checked(_))
}

/// Whether events of this kind take back others of their author.
const fn takes_back(kind: Kind) -> bool {
    matches!(kind, Kind::DELETION | Kind::VANISH)
}

//! A store under test, with helpers that publish to it and query it.

use std::{any::Any, sync::Arc};

use nostr_extensions::{
    Admitted, Group, NostrGroupId, Policy, Publisher, Query, Reader, Scope, Sealed,
    admit::{admit, group_of},
    query::Position,
};
use nostr_protocol::{
    EventId, Filter, PublicKey, Rejection, UnixSecs, Verified,
    auth::RelayNames,
    testing::{EventBuilder, keypair, public_key},
};

use crate::{Claim, ClaimFilters, Claimed, Cursor, PageBounds, Part, Saved, Store};

/// The time at which the tests begin, in Unix seconds.
pub const START: UnixSecs = 1_795_370_771;
/// Bounds that no test's answer reaches.
pub const WIDE: PageBounds =
    PageBounds { part: Part::WHOLE, events_max: 10_000, bytes_max: 64 << 20, entries_max: 1_000_000 };

/// A store, and a value that must live as long as it does.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The store's directory, for instance.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// A store under test. Keys are named: the same name is the same key.
pub struct World {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The operator's choices; "admin" is an admin key.
    pub policy: Policy,
    _keep: Box<dyn Any + Send + Sync>,
}

/// The public key of a name.
#[must_use]
pub fn key(name: &str) -> PublicKey {
    public_key(&keypair(name))
}

/// A group id.
///
/// # Panics
/// If `id` is none.
#[must_use]
#[allow(clippy::expect_used, reason = "for tests alone")]
pub fn group(id: &str) -> NostrGroupId {
    NostrGroupId::parse(id).expect("a group id")
}

/// The id of an unlisted group, the same for the same name.
#[must_use]
pub fn capability(name: &str) -> String {
    key(name).to_hex()
}

/// A filter as a client writes it.
///
/// # Panics
/// If `json` is none.
#[must_use]
#[allow(clippy::expect_used, reason = "for tests alone")]
pub fn filter(json: &str) -> Filter {
    serde_json::from_str(json).expect("a filter")
}

impl World {
    /// A world around a store, with the defaults of a relay and "admin" as an admin key.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        let policy = Policy { admin_keys: [key("admin")].into(), ..Policy::default() };
        Self { store: subject.store, policy, _keep: subject.keep }
    }

    /// The state of a group.
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn group(&self, id: &str) -> Group {
        self.store.group(&group(id)).await.expect("a group's state").0
    }

    /// The members of a managed group with their roles, by name of the key; `None` for a group that is not managed.
    pub async fn members(&self, id: &str) -> Option<Vec<(PublicKey, nostr_extensions::Role)>> {
        match self.group(id).await.status {
            nostr_extensions::GroupStatus::Managed(view) => {
                let mut members: Vec<_> = view.members.iter().map(|(key, role)| (*key, *role)).collect();
                members.sort_unstable_by_key(|(key, _)| *key);
                Some(members)
            }
            _ => None,
        }
    }

    /// Admits an event that a connection with these keys publishes at `now`, by the store's state of its group.
    ///
    /// # Errors
    /// The rejection that the client would get.
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn try_admit(&self, event: Verified, readers: &[&str], now: UnixSecs) -> Result<Admitted, Rejection> {
        let state = match group_of(event.event()) {
            Some(id) => Some(self.store.group(&id).await.expect("a group's state").0),
            None => None,
        };
        let keys: Vec<PublicKey> = readers.iter().map(|name| key(name)).collect();
        let reader = Reader::new(&keys);
        let writer = Publisher { reader: &reader, names: &RelayNames::Loopback };
        admit(event, writer, &self.policy, state.as_ref(), now)
    }

    /// The event of `by`, admitted at `now` from a connection with the key of `by`.
    ///
    /// # Panics
    /// If it is not admitted.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn admitted_at(&self, now: UnixSecs, event: &EventBuilder, by: &str) -> Admitted {
        self.try_admit(event.sign(&keypair(by)), &[by], now).await.expect("an event that is admitted")
    }

    /// See [`World::admitted_at`], at [`START`].
    pub async fn admitted(&self, event: &EventBuilder, by: &str) -> Admitted {
        self.admitted_at(START, event, by).await
    }

    /// Saves a batch.
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn save(&self, batch: Vec<Admitted>) -> Vec<Saved> {
        self.store.save(batch).await.into_iter().map(|saved| saved.expect("a store that works")).collect()
    }

    /// Saves one event of `by` at `now`.
    pub async fn publish_at(&self, now: UnixSecs, event: &EventBuilder, by: &str) -> Saved {
        let admitted = self.admitted_at(now, event, by).await;
        self.save_as_rehearsed(admitted).await
    }

    /// Saves one event, after the store has said what would come of it.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    async fn save_as_rehearsed(&self, admitted: Admitted) -> Saved {
        let rehearsed = self.store.rehearse(&admitted).await.expect("a store that works");
        let saved = self.save(vec![admitted]).await.remove(0);
        assert_eq!(rehearsed.answer(), saved.answer(), "a rehearsal decides as the store does");
        let [rehearsed, stored] = [&rehearsed, &saved]
            .map(|saved| saved.new_event().map(|sealed| (sealed.audience().clone(), sealed.expires_at())));
        assert_eq!(rehearsed, stored);
        saved
    }

    /// Saves one event of `by` at [`START`].
    pub async fn publish(&self, event: &EventBuilder, by: &str) -> Saved {
        self.publish_at(START, event, by).await
    }

    /// Saves one event of `signer`, from a connection with the key of `sender`, and gives its id.
    ///
    /// # Panics
    /// If it is not stored.
    pub async fn send(&self, event: &EventBuilder, signer: &str, sender: &str) -> EventId {
        let admitted = self.try_admit(event.sign(&keypair(signer)), &[sender], START).await;
        #[allow(clippy::expect_used, reason = "for tests alone")]
        let saved = self.save_as_rehearsed(admitted.expect("an event that is admitted")).await;
        id_of(&new(saved))
    }

    /// One page.
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn page(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> (Vec<EventId>, Option<Position>) {
        let page = self.store.scan(query, from, up_to, bounds, now).await.expect("a page");
        (page.events.iter().map(id_of).collect(), page.next)
    }

    /// All events that fit, in pages under `bounds`.
    ///
    /// # Panics
    /// If the store fails, or gives the same place twice.
    pub async fn pages(&self, query: &Query, bounds: PageBounds, now: UnixSecs) -> Vec<EventId> {
        let mut all = Vec::new();
        let mut from = None;
        loop {
            let (events, next) = self.page(query, from, Cursor::MAX, bounds, now).await;
            all.extend(events);
            assert!(next.is_none() || next != from, "a page that goes on from where it began");
            from = next;
            if from.is_none() {
                return all;
            }
        }
    }

    /// Ids of the events that fit `filter` within `scope` at `now`.
    pub async fn find_at(&self, now: UnixSecs, filter: &str, scope: Scope) -> Vec<EventId> {
        let query = Query { filter: self::filter(filter), scope };
        self.pages(&query, WIDE, now).await
    }

    /// See [`World::find_at`], at [`START`].
    pub async fn find(&self, filter: &str, scope: Scope) -> Vec<EventId> {
        self.find_at(START, filter, scope).await
    }

    /// Whether the store holds an event at [`START`].
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn holds(&self, id: EventId) -> bool {
        self.store.holds(&id, START).await.expect("an answer")
    }

    /// Sweeps until nothing is left to sweep at `now`, and counts the events.
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub async fn sweep(&self, now: UnixSecs) -> usize {
        let mut all = 0;
        loop {
            let removed = self.store.sweep(now, 1_000).await.expect("a sweep").removed;
            all += removed;
            if removed == 0 {
                return all;
            }
        }
    }
}

/// The scope of public events.
#[must_use]
pub fn everyone() -> Scope {
    Scope { everyone: true, ..Scope::default() }
}

/// The scope of events for these keys, by name.
#[must_use]
pub fn for_keys(names: &[&str]) -> Scope {
    Scope { keys: names.iter().map(|name| key(name)).collect(), ..Scope::default() }
}

/// The scope of events for these groups.
#[must_use]
pub fn for_groups(ids: &[&str]) -> Scope {
    Scope { groups: ids.iter().map(|id| group(id)).collect(), ..Scope::default() }
}

/// The id of a sealed event.
#[must_use]
pub fn id_of(sealed: &Sealed) -> EventId {
    sealed.position().id
}

/// The event that was stored.
///
/// # Panics
/// If it was not stored.
#[track_caller]
#[allow(clippy::must_use_candidate, reason = "most tests only want it stored")]
pub fn new(saved: Saved) -> Sealed {
    match saved {
        Saved::New(sealed) => sealed,
        other => panic!("not stored: {other:?}"),
    }
}

/// An event of a kind, told apart from others by its content.
#[must_use]
pub fn event(kind: u16, content: &str) -> EventBuilder {
    EventBuilder::new(kind).at(START).content(content)
}

/// A group message.
#[must_use]
pub fn message(group: &str, content: &str) -> EventBuilder {
    event(445, content).tag(&["h", group])
}

/// A gift wrap.
#[must_use]
pub fn wrap(recipient: &str, content: &str) -> EventBuilder {
    event(1059, content).tag(&["p", &key(recipient).to_hex()])
}

/// A roster.
#[must_use]
pub fn roster(group: &str, seq: u64, op: &str, names: &[&str]) -> EventBuilder {
    let start = event(450, "").tag(&["h", group]).tag(&["seq", &seq.to_string()]).tag(&["op", op]);
    names.iter().fold(start, |event, name| event.tag(&["p", &key(name).to_hex()]))
}

/// A deletion of these ids.
#[must_use]
pub fn deletion(ids: &[EventId]) -> EventBuilder {
    ids.iter().fold(event(5, ""), |event, id| event.tag(&["e", &id.to_hex()]))
}

/// A request to vanish, of this time.
#[must_use]
pub fn vanish(at: UnixSecs) -> EventBuilder {
    event(62, "").at(at).tag(&["relay", "ALL_RELAYS"])
}

/// A KeyPackage whose content this relay cannot read.
#[must_use]
pub fn key_package(content: &str, reference: &str) -> EventBuilder {
    event(443, content).tag(&["kpr", reference])
}

/// A claim of an owner's KeyPackages by a request with these filters.
#[must_use]
pub fn claim_by(owner: &str, filters: &[&str], given_max: usize, used_max: usize) -> Claim {
    let filters: Vec<Filter> = filters.iter().map(|json| filter(json)).collect();
    let filters = ClaimFilters::new(filters.into(), |filter| filter.limit.unwrap_or(500));
    Claim::new(key(owner), filters, given_max, used_max)
}

/// A claim of up to `most` KeyPackages of an owner, whatever they are.
#[must_use]
pub fn claim_of(owner: &str, most: usize) -> Claim {
    let all = format!(r#"{{"kinds":[443,30443],"authors":["{}"]}}"#, key(owner).to_hex());
    claim_by(owner, &[&all], most, most)
}

/// The ids of the KeyPackages that a claim was given.
#[must_use]
pub fn given(claimed: &Claimed) -> Vec<EventId> {
    claimed.given.iter().map(|it| id_of(&it.sealed)).collect()
}

//! Random calls to two stores, whose answers must be the same.
//!
//! The steps are data ([`Step`]), so that a failing test shrinks to the few that matter. Sets of keys, groups and kinds
//! are masks over short lists, so that events meet each other often.

pub mod strategy;

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{
    Admitted, GroupStatus, NostrGroupId, Publisher, Query, Reader, Scope,
    admit::{admit, group_of},
    gate::Touches,
    mls_gateway::{
        group::{CommitOrdering, MembershipBounds},
        mls::ContentType,
    },
};
use nostr_protocol::{
    EventId, Filter, Kind, Lifetime, PublicKey, UnixSecs,
    auth::RelayNames,
    testing::{EventBuilder, keypair},
};

use super::{
    order::private_message,
    world::{START, WIDE, capability, deletion, event, given, group, id_of, key, message, vanish, wrap},
};
use crate::{Claim, ClaimFilters, ClaimRates, Claimed, Cursor, PageBounds, ReceiptName, Saved, StockRequest, Store};

/// The keys that act.
const NAMES: [&str; 4] = ["alice", "bob", "carol", "admin"];
/// The kinds that queries name.
const KINDS: [u16; 12] = [0, 1, 4, 5, 62, 443, 445, 446, 450, 1059, 30_023, 30_443];

/// One event. Its numbers choose keys, texts and groups from short lists, so that drafts often name the same ones.
#[derive(Clone, Debug)]
pub enum Draft {
    Note {
        by: u8,
        text: u8,
        ago: u8,
        lives: Option<u8>,
    },
    Versioned {
        by: u8,
        kind: u8,
        d: u8,
        text: u8,
        ago: u8,
        lives: Option<u8>,
    },
    Direct {
        by: u8,
        to: u8,
        noise: bool,
        ago: u8,
    },
    Ephemeral {
        by: u8,
    },
    Message {
        by: u8,
        reader: u8,
        group: u8,
        text: u8,
        epoch: u8,
        /// The type of an MLS message, which shows its epoch; any other number is a message without a header.
        content: u8,
    },
    Wrap {
        by: u8,
        to: u8,
        group: Option<u8>,
        text: u8,
    },
    Roster {
        by: u8,
        group: u8,
        seq: u8,
        op: u8,
        members: u8,
        admins: bool,
        force: bool,
        order: u8,
    },
    KeyPackage {
        by: u8,
        text: u8,
        reference: Option<u8>,
        d: Option<u8>,
        ago: u8,
        lives: Option<u8>,
    },
    Delete {
        by: u8,
        targets: Vec<u8>,
        ago: u8,
    },
    DeleteAddress {
        by: u8,
        kind: u8,
        d: u8,
        ago: u8,
    },
    Vanish {
        by: u8,
        ago: u8,
    },
    /// An event that was published before.
    Again(u8),
}

/// A query.
#[derive(Clone, Debug)]
pub struct Search {
    pub kinds: Option<u16>,
    pub authors: Option<u8>,
    pub topics: Option<u8>,
    pub groups_named: Option<u8>,
    pub ids: Option<Vec<u8>>,
    pub since: Option<u8>,
    pub until: Option<u8>,
    pub everyone: bool,
    pub keys: u8,
    pub groups: u8,
    pub all_rosters: bool,
    pub up_to: Option<u8>,
    pub events_max: u8,
    pub entries_max: u8,
}

/// The parties of a claim that the store counts.
#[derive(Clone, Debug)]
pub struct Counted {
    pub by: u8,
    pub address: u8,
    pub is_stranger: bool,
    pub receipt: Option<(u8, u8)>,
}

/// One call, or an event outside the store.
#[derive(Clone, Debug)]
pub enum Step {
    Save(Vec<Draft>),
    Search(Search),
    Claim {
        owner: u8,
        most: u8,
        used: u8,
        kinds: u8,
        since: Option<u8>,
        limits: (u8, Option<u8>),
        counted: Option<Counted>,
    },
    Request {
        owner: u8,
        n: u8,
    },
    Sweep,
    Wait {
        secs: u16,
    },
    Reopen,
}

fn groups() -> [NostrGroupId; 4] {
    [group("one"), group("two"), group(&capability("three")), group(&capability("four"))]
}

fn name(n: u8) -> &'static str {
    NAMES[usize::from(n) % NAMES.len()]
}

fn group_id(n: u8) -> NostrGroupId {
    groups()[usize::from(n) % 4].clone()
}

fn chosen<T: Clone>(list: &[T], mask: u16) -> Vec<T> {
    list.iter().enumerate().filter(|(n, _)| mask & 1 << n != 0).map(|(_, item)| item.clone()).collect()
}

/// Two stores side by side; `b` is opened anew in between.
pub struct Pair<F> {
    a: Arc<dyn Store>,
    b: Option<Arc<dyn Store>>,
    open_b: F,
    now: UnixSecs,
    policy: nostr_extensions::Policy,
    published: Vec<Admitted>,
    ids: Vec<EventId>,
    /// Cursors of an event in the one log and in the other.
    places: Vec<(Cursor, Cursor)>,
}

impl<F: AsyncFnMut() -> Arc<dyn Store>> Pair<F> {
    /// Two empty stores: the oracle, and one that `open_b` opens, each time with its earlier content.
    pub async fn new(a: Arc<dyn Store>, mut open_b: F) -> Self {
        let b = Some(open_b().await);
        // Bounds that few steps reach.
        let membership_bounds = MembershipBounds { memberships_max: 2, invited_max: 3 };
        let admin_keys = [key("admin")].into();
        let policy = nostr_extensions::Policy {
            admin_keys,
            open_bootstrap: true,
            membership_bounds,
            keypackages_per_owner_max: 3,
            // Groups without a choice of their own keep an order, and some of their messages come too late.
            commit_ordering: CommitOrdering::Advisory,
            commit_grace_secs: 20,
            ..Default::default()
        };
        Self { a, b, open_b, now: START, policy, published: Vec::new(), ids: Vec::new(), places: Vec::new() }
    }

    fn b(&self) -> &Arc<dyn Store> {
        self.b.as_ref().expect("it is open")
    }

    /// Takes the steps, and compares the stores after each.
    pub async fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Save(drafts) => self.save(drafts).await,
                Step::Search(search) => self.search(search).await,
                Step::Request { owner, n } => self.request(*owner, *n).await,
                Step::Claim { owner, most, used, kinds, since, limits, counted } => {
                    let mut claim = self.claim(*owner, (*most, *used), *kinds, *since, *limits);
                    if let Some(counted) = counted {
                        claim = self.counted(claim, counted.by, counted);
                    }
                    let claims = [&self.a, self.b()].map(|it| it.claim_key_packages(&claim, self.now));
                    let [a, b] = futures_util::future::join_all(claims).await.try_into().expect("two");
                    let show = |it: Claimed| {
                        let used_up: Vec<bool> = it.given.iter().map(|given| given.is_used_up).collect();
                        let of_rates = (it.withheld, it.wait_secs, it.remaining);
                        (given(&it), used_up, it.used, of_rates, it.repetition)
                    };
                    assert_eq!(show(a.expect("a claim")), show(b.expect("a claim")));
                }
                Step::Sweep => {
                    for store in [&self.a, self.b()] {
                        while store.sweep(self.now, 10_000).await.expect("a sweep").removed > 0 {}
                    }
                    let [a, b] = [self.a.stats().await, self.b().stats().await].map(|it| it.expect("stats"));
                    assert_eq!((a.events, a.groups), (b.events, b.groups));
                }
                Step::Wait { secs } => self.now += u64::from(*secs),
                Step::Reopen => {
                    self.b = None;
                    self.b = Some((self.open_b)().await);
                }
            }
            self.compare().await;
        }
    }

    /// Closes the other store and has `mover` carry its content to the store that `open_b` opens next. Expired events
    /// stay behind.
    pub async fn moved(&mut self, mover: impl AsyncFnOnce(UnixSecs)) {
        self.a.sweep(self.now, 100_000).await.expect("a sweep");
        self.b = None;
        mover(self.now).await;
        self.b = Some((self.open_b)().await);
        self.compare().await;
        let places = async |store: &Arc<dyn Store>| {
            let log = store.after(0, 100_000).await.expect("the log").entries.into_iter();
            log.filter(|entry| entry.kind.lifetime() != Lifetime::Ephemeral).map(|entry| entry.cursor).collect()
        };
        let (a, b): (Vec<Cursor>, Vec<Cursor>) = (places(&self.a).await, places(self.b()).await);
        self.places = a.into_iter().zip(b).collect();
    }

    async fn save(&mut self, drafts: &[Draft]) {
        let mut batch = Vec::new();
        for draft in drafts {
            batch.extend(self.admitted(draft).await);
        }
        let [a, b] = [self.a.save(batch.clone()).await, self.b().save(batch.clone()).await];
        assert_eq!(a.len(), batch.len());
        for ((a, b), admitted) in a.into_iter().zip(b).zip(&batch) {
            let (a, b) = (a.expect("a save"), b.expect("a save"));
            if let (Some(a), Some(b)) = (a.new_event(), b.new_event()) {
                let last = self.places.last().copied().unwrap_or_default();
                assert!(a.cursor() > last.0 && b.cursor() > last.1, "cursors rise");
                self.places.push((a.cursor(), b.cursor()));
            }
            let show = |saved: Saved| match saved {
                Saved::New(sealed) => format!("New({:?})", sealed.audience()),
                Saved::Advised(advised) => format!("Advised({:?})", advised.1),
                other => format!("{other:?}"),
            };
            let (a, b) = (show(a), show(b));
            assert_eq!(a, b, "kind {}", admitted.event().kind());
        }
        self.ids.extend(batch.iter().map(|admitted| admitted.event().id()));
        self.published.extend(batch);
    }

    /// A claim by one filter with conditions, and perhaps another one without.
    fn claim(
        &self,
        owner: u8,
        (most, used): (u8, u8),
        kinds: u8,
        since: Option<u8>,
        limits: (u8, Option<u8>),
    ) -> Claim {
        let owner = key(name(owner));
        let of_kinds = |mask: u16| Some(chosen(&[Kind::KEY_PACKAGE, Kind::ADDRESSABLE_KEY_PACKAGE], mask));
        let asking = |kinds: u16, since: Option<u8>, limit: u8| Filter {
            kinds: of_kinds(kinds),
            authors: Some(vec![owner]),
            since: since.map(|ago| self.ago(ago)),
            limit: Some(u64::from(limit % 4)),
            ..Filter::default()
        };
        let mut filters = vec![asking(u16::from(kinds % 4), since, limits.0)];
        filters.extend(limits.1.map(|limit| asking(3, None, limit)));
        let filters = ClaimFilters::new(filters.into(), |filter| filter.limit.unwrap_or(500));
        Claim::new(owner, filters, usize::from(most % 4), usize::from(used % 4))
    }

    /// The same claim with rates that the store counts, and with a receipt under one of two names.
    fn counted(&self, claim: Claim, by: u8, counted: &Counted) -> Claim {
        let rates = ClaimRates {
            claimant: [by; 8],
            addresses: [[counted.address; 8], [0; 8]],
            is_stranger: counted.is_stranger,
            claimant_max: 2,
            addresses_max: [3, 5],
            strangers_percent: 50,
        };
        let receipt = counted.receipt.map(|(name, request)| ReceiptName {
            reader: key(self::name(by)),
            name: [name; 16],
            request: [request; 16],
        });
        Claim { rates: Some(rates), receipt, ..claim }
    }

    /// Whether both stores say the same of an owner's stock, and of a request for more.
    async fn request(&self, owner: u8, n: u8) {
        let owner = key(name(owner));
        let [a, b] = [self.a.stock(&owner, self.now).await, self.b().stock(&owner, self.now).await];
        assert_eq!(a.expect("a stock"), b.expect("a stock"));
        let id = self.ids.get(usize::from(n) % self.ids.len().max(1)).copied();
        let id = id.unwrap_or(EventId::from_bytes([n; 32]));
        let request = StockRequest { owner, id, low_watermark: 3, expired: None };
        let may = [&self.a, self.b()].map(|store| store.may_request(&request, self.now));
        let [a, b] = futures_util::future::join_all(may).await.try_into().expect("two");
        assert_eq!(a.expect("an answer"), b.expect("an answer"));
        for name in NAMES {
            let shares = [&self.a, self.b()].map(|store| async move { store.shares_group(&owner, &key(name)).await });
            let [a, b] = futures_util::future::join_all(shares).await.try_into().expect("two");
            assert_eq!(a.expect("an answer").0, b.expect("an answer").0);
        }
    }

    /// Admits a draft by the oracle's groups; `None` if admission refuses it.
    async fn admitted(&self, draft: &Draft) -> Option<Admitted> {
        if let Draft::Again(n) = draft {
            return self.published.get(usize::from(*n) % self.published.len().max(1)).cloned();
        }
        let (event, by, reader) = self.built(draft);
        let event = event.sign(&keypair(by));
        let state = match group_of(event.event()) {
            Some(id) => Some(self.a.group(&id).await.expect("a state").0),
            None => None,
        };
        let reader = Reader::new(&[key(reader)]);
        let writer = Publisher { reader: &reader, names: &RelayNames::Loopback };
        admit(event, writer, &self.policy, state.as_ref(), self.now).ok()
    }

    fn ago(&self, ago: u8) -> UnixSecs {
        self.now - u64::from(ago % 16)
    }

    fn expiring(&self, event: EventBuilder, lives: Option<u8>) -> EventBuilder {
        match lives {
            Some(secs) => event.tag(&["expiration", &(self.now + 1 + u64::from(secs % 64)).to_string()]),
            None => event,
        }
    }

    fn id(&self, n: u8) -> EventId {
        self.ids.get(usize::from(n) % (self.ids.len() + 1)).copied().unwrap_or(EventId::from_bytes([n; 32]))
    }

    /// The event of a draft, its signer, and the reader that publishes it.
    fn built(&self, draft: &Draft) -> (EventBuilder, &'static str, &'static str) {
        let own = |event: EventBuilder, by: &u8| (event, name(*by), name(*by));
        match draft {
            Draft::Note { by, text, ago, lives } => {
                let note = event(1, &format!("{text}")).at(self.ago(*ago)).tag(&["t", &format!("t{}", text % 4)]);
                own(self.expiring(note.tag(&["t", "all"]), *lives), by)
            }
            Draft::Versioned { by, kind, d, text, ago, lives } => {
                let kind = [0, 10_002, 30_023][usize::from(kind % 3)];
                let version = event(kind, &text.to_string()).at(self.ago(*ago)).tag(&["d", &format!("d{}", d % 2)]);
                own(self.expiring(version, *lives), by)
            }
            Draft::Direct { by, to, noise, ago } => {
                let direct = event(if *noise { 446 } else { 4 }, "psst").at(self.ago(*ago)).tag(&["v", "noise.1"]);
                own(direct.tag(&["p", &key(name(*to)).to_hex()]), by)
            }
            Draft::Ephemeral { by } => own(event(20_001, "now"), by),
            Draft::Message { by, reader, group, text, epoch, content } => {
                let (group, text, ago) = (group_id(*group), text.to_string(), self.ago(*text));
                let mls = |content| private_message(group.as_str(), u64::from(epoch % 4), content, &text);
                let said = match content {
                    1 => mls(ContentType::Application),
                    2 => mls(ContentType::Proposal),
                    3..=5 => mls(ContentType::Commit),
                    _ => message(group.as_str(), &text),
                };
                let said = said.at(ago);
                // Some tags contradict the header.
                let epoch = if *content == 0 { *epoch } else { epoch % 5 };
                (said.tag(&["k", &epoch.to_string()]), name(*by), name(*reader))
            }
            Draft::Wrap { by, to, group, text } => {
                let wrapped = wrap(name(*to), &text.to_string()).at(self.ago(*text));
                own(group.map_or(wrapped.clone(), |it| wrapped.tag(&["h", group_id(it).as_str()])), by)
            }
            Draft::Roster { by, group, seq, op, members, admins, force, order } => {
                let op = usize::from(op % 7);
                let op = ["bootstrap", "add", "remove", "promote", "demote", "replace", "reset-epoch"][op];
                let members = if op == "reset-epoch" { 0 } else { u16::from(*members) };
                let names = chosen(&NAMES, members);
                let roster = super::world::roster(group_id(*group).as_str(), u64::from(seq % 32) + 1, op, &names);
                let roster = roster.tag(&["role", if *admins { "admin" } else { "member" }]);
                let roster = roster.tag(&["epoch", &(order % 4).to_string()]);
                let roster = match CommitOrdering::ALL.get(usize::from(*order)) {
                    Some(chosen) => roster.tag(&["commit_ordering", chosen.as_str()]),
                    None => roster,
                };
                own(if *force { roster.tag(&["force", "true"]) } else { roster }, by)
            }
            Draft::KeyPackage { by, text, reference, d, ago, lives } => {
                let package = event(if d.is_some() { 30_443 } else { 443 }, &format!("package {}", text % 4));
                let package = self.expiring(package.at(self.ago(*ago)), *lives);
                let package = reference.map_or(package.clone(), |it| package.tag(&["i", &format!("ref{}", it % 4)]));
                own(d.map_or(package.clone(), |d| package.tag(&["d", &format!("d{}", d % 2)])), by)
            }
            Draft::Delete { by, targets, ago } => {
                let ids: Vec<EventId> = targets.iter().map(|n| self.id(*n)).collect();
                own(deletion(&ids).at(self.ago(*ago)), by)
            }
            Draft::DeleteAddress { by, kind, d, ago } => {
                let kind = [0, 10_002, 30_023, 30_443][usize::from(kind % 4)];
                let address = format!("{kind}:{}:d{}", key(name(*by)), d % 2);
                own(event(5, "").at(self.ago(*ago)).tag(&["a", &address]), by)
            }
            Draft::Vanish { by, ago } => own(vanish(self.ago(*ago)), by),
            Draft::Again(_) => own(event(1, "again"), &0),
        }
    }

    async fn search(&self, search: &Search) {
        let hex = |keys: Vec<&str>| keys.into_iter().map(key).collect::<Vec<PublicKey>>();
        let sorted = |mut keys: Vec<PublicKey>| {
            keys.sort_unstable();
            keys
        };
        let mut filter = Filter {
            kinds: search.kinds.map(|mask| chosen(&KINDS.map(Kind), mask)),
            authors: search.authors.map(|mask| sorted(hex(chosen(&NAMES, mask.into())))),
            ids: search.ids.as_ref().map(|ids| {
                let mut ids: Vec<EventId> = ids.iter().map(|n| self.id(*n)).collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            }),
            since: search.since.map(|ago| self.ago(ago)),
            until: search.until.map(|ago| self.ago(ago)),
            ..Filter::default()
        };
        if let Some(mask) = search.topics {
            let topics = ["all", "t0", "t1", "t2", "t3"].map(Box::from);
            filter.tags.insert(b't', chosen(&topics, mask.into()));
        }
        if let Some(mask) = search.groups_named {
            let mut named = chosen(&groups().map(|id| Box::from(id.as_str())), mask.into());
            named.sort_unstable();
            filter.tags.insert(b'h', named);
        }
        let scope = Scope {
            everyone: search.everyone,
            keys: hex(chosen(&NAMES, search.keys.into())),
            groups: chosen(&groups(), search.groups.into()),
            all_rosters: search.all_rosters,
        };
        let query = Query { filter, scope };
        let place = |n: u8| match usize::from(n) % (self.places.len() + 1) {
            0 => (0, 0),
            n => self.places[n - 1],
        };
        let (up_to_a, up_to_b) = search.up_to.map_or((Cursor::MAX, Cursor::MAX), place);
        let whole = self.a.scan(&query, None, up_to_a, WIDE, self.now).await.expect("a page");
        let whole: Vec<EventId> = whole.events.iter().map(id_of).collect();
        let bounds = PageBounds {
            events_max: usize::from(search.events_max),
            entries_max: usize::from(search.entries_max),
            ..WIDE
        };
        for (store, up_to) in [(&self.a, up_to_a), (self.b(), up_to_b)] {
            let (mut found, mut from) = (Vec::new(), None);
            loop {
                let page = store.scan(&query, from, up_to, bounds, self.now).await.expect("a page");
                assert!(page.events.len() <= bounds.events_max.max(1));
                found.extend(page.events.iter().map(id_of));
                assert!(page.next.is_none() || page.next != from);
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(found, whole, "{query:?}");
        }
    }

    /// Compares all answers that need no query.
    async fn compare(&self) {
        let (a, b) = (&self.a, self.b());
        let log = async |store: &Arc<dyn Store>| {
            let log = store.after(0, 10_000).await.expect("the log");
            assert!(log.entries.is_sorted_by(|a, b| a.cursor < b.cursor) && log.through >= store.head());
            // Only shared stores have ephemeral events in their log.
            let kept = log.entries.into_iter().filter(|entry| entry.kind.lifetime() != Lifetime::Ephemeral);
            let mut touches: HashMap<Cursor, Touches> = kept.map(|entry| (entry.cursor, entry.touches)).collect();
            let cursors: Vec<Cursor> = touches.keys().copied().collect();
            // The log may name events that are gone.
            let events = store.events_at(&cursors).await.expect("the events");
            let entries = events.iter().map(|sealed| (id_of(sealed), touches.remove(&sealed.cursor())));
            entries.collect::<Vec<_>>()
        };
        let (log_a, log_b) = (log(a).await, log(b).await);
        assert_eq!(log_a, log_b);
        for id in groups() {
            let [a, b] = [a.group(&id).await, b.group(&id).await].map(|it| it.expect("a state").0.status);
            match (a, b) {
                (GroupStatus::Managed(a), GroupStatus::Managed(b)) => assert_eq!(a, b),
                (a, b) => assert_eq!(a, b),
            }
        }
        for name in NAMES {
            let keys = [key(name)];
            let [a, b] = [a.groups_of(&keys).await, b.groups_of(&keys).await].map(|it| it.expect("groups"));
            assert_eq!(a, b);
        }
        for id in &self.ids {
            let [a, b] = [a.holds(id, self.now).await, b.holds(id, self.now).await].map(|it| it.expect("an answer"));
            assert_eq!(a, b);
        }
    }
}

//! The members of a group under whose keys subscriptions of a shard stand.
//!
//! An event of a group is for its members. The routes of all members would have to be looked up for each event, in each
//! shard. Instead each state of a group works them out once, and keeps for each shard those under which a subscription
//! stands: the *awaited* ones. The shard's index notes every member's route that comes or goes, and the list takes in
//! the notes since the group's last event. It begins anew where the index has forgotten some of them.
//!
//! An event so costs the subscriptions that stand under its group's members, and for each route that came or went since
//! the last one a search in the members' routes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

use nostr_extensions::{GroupStatus, RouteHasher, route::Condition};
use parking_lot::Mutex;

use super::{index::ROUTES_PER_HOLD_MAX, live::SHARDS_MAX};

/// Most notes of routes that came or went which an index keeps.
const NOTES_MAX: usize = 8_192;

/// The routes of a group's members, in one state of the group.
#[derive(Default)]
pub(super) struct MemberRoutes {
    /// In ascending order.
    all: OnceLock<Box<[u64]>>,
    by_shard: [Mutex<Option<Arc<Awaited>>>; SHARDS_MAX],
}

/// The awaited routes of a group in one shard.
#[derive(Clone, Default)]
pub(super) struct Awaited {
    /// In ascending order.
    pub(super) routes: Vec<u64>,
    /// Number of the index's notes that were taken in.
    through: u64,
}

impl MemberRoutes {
    /// The routes of all members of a group in this status, which never is another one.
    pub(super) fn all(&self, status: &GroupStatus, hasher: &RouteHasher) -> &[u64] {
        self.all.get_or_init(|| {
            let GroupStatus::Managed(managed) = status else { return Box::default() };
            let mut all: Vec<u64> = managed.members.keys().map(|key| hasher.hash(Condition::Member(*key))).collect();
            all.sort_unstable();
            all.into()
        })
    }

    /// The awaited routes as they were last known.
    pub(super) fn awaited(&self, shard: usize) -> Option<Arc<Awaited>> {
        self.by_shard[shard].lock().clone()
    }

    /// Keeps the awaited routes, unless later ones are known.
    pub(super) fn keep(&self, shard: usize, awaited: &Arc<Awaited>) {
        let mut kept = self.by_shard[shard].lock();
        if kept.as_ref().is_none_or(|kept| kept.through < awaited.through) {
            *kept = Some(Arc::clone(awaited));
        }
    }
}

/// The members' routes under which the subscriptions of a shard stand.
#[derive(Default)]
pub(super) struct AskedMembers {
    /// Number of subscriptions under each.
    subscriptions: HashMap<u64, usize>,
    /// The last routes that came or went, in their order.
    notes: VecDeque<u64>,
    /// Number of notes that were ever made.
    noted: u64,
}

impl AskedMembers {
    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Adds the routes of a subscription.
    pub(super) fn add(&mut self, routes: &[u64]) {
        for route in routes {
            let under = self.subscriptions.entry(*route).or_default();
            *under += 1;
            if *under == 1 {
                self.note(*route);
            }
        }
    }

    /// Removes the routes of a subscription.
    pub(super) fn remove(&mut self, routes: &[u64]) {
        for route in routes {
            let Some(under) = self.subscriptions.get_mut(route) else { continue };
            *under -= 1;
            if *under == 0 {
                self.subscriptions.remove(route);
                self.note(*route);
            }
        }
    }

    /// Removes every route.
    pub(super) fn clear(&mut self) {
        self.subscriptions.clear();
        self.notes.clear();
        // No list has taken this note in, so each begins anew.
        self.noted += 1;
    }

    fn note(&mut self, route: u64) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(route);
        self.noted += 1;
    }

    /// Returns whether the list has taken in every note.
    pub(super) const fn is_followed_by(&self, awaited: &Awaited) -> bool {
        awaited.through == self.noted
    }

    /// Does some of the work of `following`; `true` where some is left.
    pub(super) fn follow(&self, following: &mut Following<'_>) -> bool {
        let first = self.noted - self.notes.len() as u64;
        let Following { all, awaited, walked, steps } = following;
        // Walking through the members is the shorter work where more was noted than there are members.
        let begins_anew = awaited.through < first || self.noted - awaited.through > all.len() as u64;
        if walked.is_none() && begins_anew {
            (awaited.through, *walked) = (self.noted, Some(0));
            awaited.routes.clear();
        }
        let mut left = ROUTES_PER_HOLD_MAX;
        if let Some(at) = walked {
            let some = &all[*at..all.len().min(*at + left)];
            awaited.routes.extend(some.iter().filter(|route| self.subscriptions.contains_key(*route)));
            *at += some.len();
            *steps += some.len();
            if *at < all.len() {
                return true;
            }
            left -= some.len();
            *walked = None;
        }
        if awaited.through < first {
            return true;
        }
        let seen = usize::try_from(awaited.through - first).unwrap_or(usize::MAX);
        for route in self.notes.iter().skip(seen).take(left) {
            awaited.through += 1;
            *steps += 1;
            if all.binary_search(route).is_ok() {
                awaited.set(*route, self.subscriptions.contains_key(route));
            }
        }
        awaited.through < self.noted
    }
}

impl Awaited {
    fn set(&mut self, route: u64, is_awaited: bool) {
        match (self.routes.binary_search(&route), is_awaited) {
            (Err(at), true) => self.routes.insert(at, route),
            (Ok(at), false) => drop(self.routes.remove(at)),
            _ => {}
        }
    }
}

/// The work of bringing a list of awaited routes up to date.
pub(super) struct Following<'a> {
    all: &'a [u64],
    awaited: Awaited,
    /// Set while the list begins anew: the number of members' routes that were looked up.
    walked: Option<usize>,
    /// Number of routes that were looked up so far.
    pub(super) steps: usize,
}

impl<'a> Following<'a> {
    /// Goes on from `known`, or begins.
    pub(super) fn from(all: &'a [u64], known: Option<&Awaited>) -> Self {
        Self { all, awaited: known.cloned().unwrap_or_default(), walked: None, steps: 0 }
    }

    /// The list, once no work is left.
    pub(super) fn done(self) -> Awaited {
        self.awaited
    }
}

//! Claims of KeyPackages from an owner's directory.

use std::collections::{HashMap, HashSet};

use nostr_extensions::Sealed;
use nostr_protocol::{EventId, PublicKey, UnixSecs};

use crate::{
    Claim, Claimed, Cost,
    decide::{
        claim::{Candidate, Owned, Pick, Search, Stock, pick},
        facts::{claimed as used_up, tombstone_key},
    },
    firestore::{
        Inner,
        documents::{
            events::EventDocument,
            packages::{Directory, Package},
        },
        wire::{
            fail::Fail,
            value::{self, Fields},
        },
        write::save::TRIES_MAX,
    },
};

/// The KeyPackages that a claim may give, and the owner's stock when they were found.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    events: HashMap<EventId, Sealed>,
    /// Events that the service removed by lifetime, while the directory still names them.
    missing: HashSet<EventId>,
    cost: Cost,
}

impl Inner {
    /// See [`crate::Store::claim_key_packages`].
    pub(crate) async fn claim(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, Fail> {
        self.history.is_ours()?;
        let mut tries = 0;
        loop {
            match self.try_to_claim(claim, now).await {
                Err(Fail::Conflict) if tries + 1 < TRIES_MAX => self.wait_before(tries).await,
                done => return done,
            }
            tries += 1;
        }
    }

    async fn try_to_claim(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, Fail> {
        let name = self.names.owner(&claim.owner);
        let got = self.client.get(vec![name.clone()], None).await?;
        let mut directory = Directory::read(got.get(&name))?;
        let there = |package: &&Package| package.expires_at > now;
        let all: Vec<Owned> = directory.packages.iter().filter(there).zip(0..).map(owned).collect();
        let found = self.search(claim, &all).await?;
        let stock = Stock::of(&found.candidates, all.iter().filter(|it| !found.missing.contains(&it.id)));
        let pick = pick(claim, &found.candidates, &stock);
        let event = |index: usize| found.events.get(&found.candidates[index].owned.id).cloned();
        let given = pick.given.iter().filter_map(|(index, filter)| Some((event(*index)?, *filter))).collect();
        if !pick.used.is_empty() {
            self.use_up(&claim.owner, &mut directory, &pick, &found.missing, now).await?;
        }
        Ok(Claimed { given, used: pick.used.len(), withheld: pick.withheld, cost: found.cost })
    }

    /// Searches until the claim is served, as each event is a document to read.
    async fn search(&self, claim: &Claim, all: &[Owned]) -> Result<Found, Fail> {
        let mut search = Search::new(claim);
        let mut found = Found::default();
        for last_resort in [false, true] {
            let sort: Vec<&Owned> = all.iter().filter(|it| it.last_resort == last_resort).collect();
            for some in sort.chunks(claim.given_max.max(1)) {
                let so_far = search.candidates();
                let picked = pick(claim, &so_far, &Stock::of(&so_far, all.iter()));
                let is_served = picked.given.len() >= claim.given_max || (picked.withheld && !last_resort);
                if is_served || !search.looks_for(last_resort) {
                    break;
                }
                let wanted: Vec<&&Owned> = some.iter().filter(|it| search.wants(it)).collect();
                let got = self.client.get(wanted.iter().map(|it| self.names.event(&it.id)).collect(), None).await?;
                found.cost += Cost::of_documents(wanted.len() as u64);
                for owned in wanted {
                    let Some(document) = got.get(&self.names.event(&owned.id)) else {
                        found.missing.insert(owned.id);
                        continue;
                    };
                    let document = EventDocument::read(document)?;
                    if search.look(owned, document.event.view()) {
                        found.events.insert(owned.id, document.seal());
                    }
                }
            }
        }
        found.candidates = search.candidates();
        // The directory is a document too.
        found.cost += Cost::of_documents(1);
        found.cost += search.cost();
        Ok(found)
    }

    /// Commits the choice, unless the directory has changed since it was read.
    async fn use_up(
        &self,
        owner: &PublicKey,
        directory: &mut Directory,
        pick: &Pick,
        missing: &HashSet<EventId>,
        now: UnixSecs,
    ) -> Result<(), Fail> {
        let gone: HashSet<EventId> = pick.gone.iter().map(|(_, id)| *id).collect();
        directory.retain(|package| !gone.contains(&package.id) && !missing.contains(&package.id));
        let mut writes: Vec<_> = directory.write(&self.names, owner, now)?.into_iter().collect();
        for id in &gone {
            writes.push(value::delete(self.names.event(id)));
            let tombstone = self.names.tombstone(&tombstone_key(id, owner));
            writes.push(value::set(tombstone, Fields::default().flag("public", true)));
        }
        let used = pick.used.iter().map(|hash| self.names.claimed(&used_up(owner, hash)));
        writes.extend(used.map(|name| value::set(name, Fields::default())));
        self.client.commit(writes, None).await?;
        Ok(())
    }
}

fn owned((package, n): (&Package, u64)) -> Owned {
    Owned { cursor: n, id: package.id, content_hash: package.content_hash, last_resort: package.last_resort }
}

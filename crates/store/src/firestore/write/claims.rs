//! Claims of KeyPackages from an owner's directory. The directory's document holds the owner's ledger too, so a commit
//! that claims conflicts with every other claim, addition and request of that owner.

use std::collections::{HashMap, HashSet};

use gcloud_sdk::google::firestore::v1::value::ValueType;
use nostr_extensions::Stamp;
use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};
use tokio::sync::Mutex;

use crate::{
    Claim, Claimed, Cost, StockRequest,
    decide::{
        claim::{Candidate, Contents, Owned, Pick, Search, Stock, pick},
        facts::{claimed as used_up, tombstone_key},
        ledger::Ledger,
        receipt::Receipt,
    },
    firestore::{
        Inner,
        documents::{
            events::EventDocument,
            names::field,
            packages::{Directory, PACKAGES_MAX, Package},
        },
        wire::{
            clock::{SEC, timestamp},
            fail::Fail,
            value::{self, Fields, ReadFields as _, Version},
        },
        write::save::TRIES_MAX,
    },
};

/// Queues in which claims wait for each other after others overtook them. Two owners may share one.
const QUEUES_MAX: usize = 64;

/// Claims of one owner that conflict go on one after the other, so that many claims of one process at one time do not
/// use up their tries on each other.
#[derive(Debug)]
pub(crate) struct ClaimQueues([Mutex<()>; QUEUES_MAX]);

impl Default for ClaimQueues {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl ClaimQueues {
    fn of(&self, owner: &PublicKey) -> &Mutex<()> {
        &self.0[usize::from(owner.as_bytes()[0]) % QUEUES_MAX]
    }
}

/// The KeyPackages that a claim may give, and the owner's stock when they were found.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    events: HashMap<EventId, (Event, Stamp)>,
    /// Events that the service removed by lifetime, while the directory still names them.
    missing: HashSet<EventId>,
    cost: Cost,
}

impl Inner {
    /// See [`crate::Store::claim_key_packages`].
    pub(crate) async fn claim(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, Fail> {
        self.history.is_ours()?;
        match self.try_to_claim(claim, now).await {
            Err(Fail::Conflict) => {}
            done => return done,
        }
        let _queue = self.claims.of(&claim.owner).lock().await;
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
        let receipt = claim.receipt.as_ref().map(|receipt| self.names.receipt(receipt));
        let got = self.client.get([name.clone()].into_iter().chain(receipt.clone()).collect(), None).await?;
        let kept = receipt.as_ref().and_then(|name| got.get(name));
        let version = Version::of(kept);
        if let (Some(kept), Some(name)) = (kept, &claim.receipt) {
            let kept = kept.bytes("answer").and_then(Receipt::unpack).ok_or(Fail::Damaged("a receipt"))?;
            if kept.until() > now {
                return Ok(kept.answer(name, self.vanished_until(&claim.owner).await?));
            }
        }
        let mut directory = Directory::read(got.get(&name))?;
        let all: Vec<Owned> = self.owned_of(&claim.owner, &directory, now).zip(0..).map(owned).collect();
        let found = self.search(claim, &all, &directory.ledger, now).await?;
        let stock = Stock::of(claim, &found.candidates, all.iter().filter(|it| !found.missing.contains(&it.id)));
        let pick = pick(claim, &found.candidates, &stock, &directory.ledger, now);
        let event = |index: usize| found.events.get(&found.candidates[index].owned.id).cloned();
        let (claimed, answer) = pick.answer(claim, now, found.cost, event);
        if pick.writes(claim) {
            let receipt = receipt.zip(answer).map(|(name, answer)| (name, answer, version));
            self.use_up(claim, &mut directory, &pick, &found.missing, receipt, now).await?;
        }
        Ok(claimed)
    }

    /// The owner's KeyPackages that are there at `now`.
    fn owned_of<'d>(
        &self,
        owner: &PublicKey,
        directory: &'d Directory,
        now: UnixSecs,
    ) -> impl Iterator<Item = &'d Package> + use<'d> {
        let vanished = self.hiding.now().until(owner);
        let there = move |package: &&Package| {
            package.expires_at > now && vanished.is_none_or(|until| package.created_at > until)
        };
        directory.packages.iter().filter(there).take(PACKAGES_MAX)
    }

    async fn vanished_until(&self, key: &PublicKey) -> Result<Option<UnixSecs>, Fail> {
        let name = self.names.vanished(key);
        let got = self.client.get(vec![name.clone()], None).await?;
        Ok(got.get(&name).and_then(|document| document.secs("until")))
    }

    /// Searches until the claim is served, as each event is a document to read.
    async fn search(&self, claim: &Claim, all: &[Owned], ledger: &Ledger, now: UnixSecs) -> Result<Found, Fail> {
        let mut search = Search::new(claim);
        search.note_lines(all.len());
        let mut found = Found::default();
        for last_resort in [false, true] {
            let sort: Vec<&Owned> = all.iter().filter(|it| it.last_resort == last_resort).collect();
            for some in sort.chunks(claim.given_max.max(1)) {
                let so_far = search.candidates();
                let picked = pick(claim, &so_far, &Stock::of(claim, &so_far, all.iter()), ledger, now);
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
                        found.events.insert(owned.id, document.unpack());
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
        claim: &Claim,
        directory: &mut Directory,
        pick: &Pick,
        missing: &HashSet<EventId>,
        receipt: Option<(String, Receipt, Version)>,
        now: UnixSecs,
    ) -> Result<(), Fail> {
        let owner = &claim.owner;
        let gone: HashSet<EventId> = pick.gone.iter().map(|(_, id)| *id).collect();
        let held = directory.packages.iter().filter(|package| gone.contains(&package.id));
        let held = held.filter_map(|package| Some((package.address(owner)?, package.created_at)));
        let buried: Vec<_> = held
            .map(|(address, until)| value::raise(self.names.address(&address), field::DELETED_UNTIL, until))
            .collect();
        directory.retain(|package| !gone.contains(&package.id) && !missing.contains(&package.id));
        if let Some(content_hash) = &pick.last {
            directory.mark_last_resort(content_hash);
        }
        if directory.ledger.note(claim.rates.as_ref(), &pick.used, now) {
            directory.note_change();
        }
        let mut writes: Vec<_> = directory.write(&self.names, owner, now)?.into_iter().collect();
        for id in &gone {
            writes.push(value::delete(self.names.event(id)));
            let tombstone = self.names.tombstone(&tombstone_key(id, owner));
            writes.push(value::set(tombstone, Fields::default().flag("public", true)));
        }
        let used = pick.used.iter().map(|hash| self.names.claimed(&used_up(owner, hash)));
        writes.extend(used.map(|name| value::set(name, Fields::default())));
        writes.extend(buried);
        if let Some((name, receipt, version)) = receipt {
            let at = timestamp(receipt.until() * SEC);
            let fields = Fields::default()
                .bytes("answer", receipt.pack())
                .with(field::EXPIRES_AT, ValueType::TimestampValue(at));
            writes.push(value::put(name, fields, version));
        }
        self.client.commit(writes, None).await?;
        Ok(())
    }

    /// See [`crate::Store::stock`].
    pub(crate) async fn count_packages(&self, owner: &PublicKey, now: UnixSecs) -> Result<crate::Stock, Fail> {
        let name = self.names.owner(owner);
        let directory = Directory::read(self.client.get(vec![name.clone()], None).await?.get(&name))?;
        Ok(self.contents(owner, &directory, now).stock())
    }

    fn contents(&self, owner: &PublicKey, directory: &Directory, now: UnixSecs) -> Contents {
        let mut contents = Contents::default();
        self.owned_of(owner, directory, now).for_each(|it| contents.add(it.content_hash, it.last_resort));
        contents
    }

    /// See [`crate::Store::may_request`].
    pub(crate) async fn request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, Fail> {
        self.history.is_ours()?;
        let mut tries = 0;
        loop {
            match self.try_to_request(request, now).await {
                Err(Fail::Conflict) if tries + 1 < TRIES_MAX => self.wait_before(tries).await,
                done => return done,
            }
            tries += 1;
        }
    }

    async fn try_to_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, Fail> {
        let name = self.names.owner(&request.owner);
        let mut directory = Directory::read(self.client.get(vec![name.clone()], None).await?.get(&name))?;
        let is_addressable = self.owned_of(&request.owner, &directory, now).any(|package| package.is_addressable);
        let contents = self.contents(&request.owner, &directory, now);
        if is_addressable || contents.stock().unclaimed >= request.low_watermark {
            return Ok(false);
        }
        let is_kept = match directory.ledger.last_request() {
            Some(id) => self.holds(&id, now).await?,
            None => false,
        };
        let contents = contents.into_hashes();
        if !directory.ledger.request(request.id, &contents, request.expired, is_kept, now) {
            return Ok(false);
        }
        directory.note_change();
        let writes = directory.write(&self.names, &request.owner, now)?.into_iter().collect();
        self.client.commit(writes, None).await?;
        Ok(true)
    }
}

fn owned((package, n): (&Package, u64)) -> Owned {
    Owned { cursor: n, id: package.id, content_hash: package.content_hash, last_resort: package.last_resort }
}

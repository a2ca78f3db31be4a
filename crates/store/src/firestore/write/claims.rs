//! Claims of KeyPackages from an owner's directory.

use std::collections::HashSet;

use nostr_extensions::Sealed;
use nostr_protocol::{EventId, PublicKey, UnixSecs};

use crate::{
    decide::{
        claim::{Owned, claim},
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

impl Inner {
    /// See [`crate::Store::claim_key_packages`].
    pub(crate) async fn claim(
        &self,
        owner: &PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, Fail> {
        let mut tries = 0;
        loop {
            match self.try_to_claim(owner, packages_max, now).await {
                Err(Fail::Conflict) if tries + 1 < TRIES_MAX => self.wait_before(tries).await,
                done => return done,
            }
            tries += 1;
        }
    }

    async fn try_to_claim(&self, owner: &PublicKey, packages_max: usize, now: UnixSecs) -> Result<Vec<Sealed>, Fail> {
        let name = self.names.owner(owner);
        let got = self.client.get(vec![name.clone()], None).await?;
        let mut directory = Directory::read(got.get(&name))?;
        // Events that the service removed by lifetime, while the directory still names them.
        let mut missing: HashSet<EventId> = HashSet::new();
        loop {
            let there = |package: &&Package| package.expires_at > now && !missing.contains(&package.id);
            let owned: Vec<Owned> = directory.packages.iter().filter(there).zip(0..).map(owned).collect();
            let claimed = claim(&owned, packages_max);
            let ids: Vec<EventId> =
                claimed.given.iter().filter_map(|at| Some(owned.get(usize::try_from(*at).ok()?)?.id)).collect();
            let got = self.client.get(ids.iter().map(|id| self.names.event(id)).collect(), None).await?;
            let absent: Vec<EventId> =
                ids.iter().filter(|id| got.get(&self.names.event(id)).is_none()).copied().collect();
            if !absent.is_empty() {
                missing.extend(absent);
                continue;
            }
            let mut given = Vec::new();
            for id in &ids {
                if let Some(document) = got.get(&self.names.event(id)) {
                    given.push(EventDocument::read(document)?.seal());
                }
            }
            if !claimed.gone.is_empty() {
                let gone: HashSet<EventId> = claimed.gone.iter().map(|(_, id)| *id).collect();
                directory.retain(|package| !gone.contains(&package.id) && !missing.contains(&package.id));
                let mut writes: Vec<_> = directory.write(&self.names, owner, now)?.into_iter().collect();
                for id in &gone {
                    writes.push(value::delete(self.names.event(id)));
                    writes.push(value::set(
                        self.names.tombstone(&tombstone_key(id, owner)),
                        Fields::default().flag("public", true),
                    ));
                }
                let used: HashSet<&[u8; 32]> = claimed.used.iter().collect();
                writes.extend(
                    used.into_iter()
                        .map(|hash| value::set(self.names.claimed(&used_up(owner, hash)), Fields::default())),
                );
                self.client.commit(writes, None).await?;
            }
            return Ok(given);
        }
    }
}

fn owned((package, n): (&Package, u64)) -> Owned {
    Owned { cursor: n, id: package.id, content_hash: package.content_hash, last_resort: package.last_resort }
}

//! Groups that two keys share, for one of the keys.
//!
//! Source: docs/rules.md, "Claims" 6 and "Memberships" 7. The key that asks pays for each document, and its price must
//! not tell how many groups the other key is in. So no list of the other key's groups is read: each of the asking key's
//! own groups is asked for the other key.

use futures_util::future::try_join_all;
use nostr_extensions::NostrGroupId;
use nostr_protocol::PublicKey;

use crate::{
    Cost,
    firestore::{
        Inner,
        documents::{
            groups::number,
            names::{Collection, field},
            query::{self, VALUES_MAX},
        },
        wire::{fail::Fail, value::ReadFields as _},
    },
};

/// Most groups that are looked into at one time.
const LOOKED_INTO_AT_ONCE_MAX: usize = 8;

impl Inner {
    /// See [`crate::Store::shares_group`].
    pub(crate) async fn find_common_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), Fail> {
        let numbers = [number(key)];
        let [inline, large] = [Collection::Groups, Collection::Members].map(|of| self.memberships(of, &numbers));
        let (inline, large) = tokio::try_join!(inline, large)?;
        let mut documents = (inline.len().max(1) + large.len().max(1)) as u64;
        let mut shared: Vec<NostrGroupId> = Vec::new();
        let names: Vec<String> = inline.iter().map(|id| self.names.group(id)).collect();
        for names in names.chunks(VALUES_MAX) {
            let found = self.client.query(query::groups_with_member(&self.names, names, owner)).await?;
            documents += found.charged;
            shared.extend(found.documents.iter().filter_map(|it| NostrGroupId::parse(it.text(field::GROUP)?)));
        }
        // A group in shards has no member in its head, so each of them is looked into.
        shared.extend(large);
        // All of them, which are at most as many as the asking key may be a member of: anyone can invite both keys into
        // groups in which neither has acted, and would hide the one in which the owner has.
        for some in shared.chunks(LOOKED_INTO_AT_ONCE_MAX) {
            let looks = try_join_all(some.iter().map(|id| self.has_acted(id, owner))).await?;
            documents += looks.iter().map(|(_, read)| read).sum::<u64>();
            if looks.iter().any(|(has_acted, _)| *has_acted) {
                return Ok((true, Cost::of_documents(documents)));
            }
        }
        Ok((false, Cost::of_documents(documents)))
    }
}

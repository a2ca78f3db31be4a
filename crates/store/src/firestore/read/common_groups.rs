//! Groups that two keys share, for one of the keys.
//!
//! Source: docs/rules.md, "Claims" 6 and "Memberships" 7. The key that asks pays for each document, and its price must
//! not tell how many groups the other key is in. So no list of the other key's groups is read: each of the asking key's
//! own groups is asked for the other key.

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

/// Most groups of both keys, and most large ones of the asking key, that are looked into.
const LOOKED_INTO_MAX: usize = 16;

impl Inner {
    /// See [`crate::Store::shares_group`].
    pub(crate) async fn find_common_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), Fail> {
        let numbers = [number(key)];
        let [inline, large] = [Collection::Groups, Collection::Members].map(|of| self.memberships(of, &numbers));
        let (inline, large) = tokio::try_join!(inline, large)?;
        let mut documents = (inline.len().max(1) + large.len().max(1)) as u64;
        // A group in shards has no member in its head, so each of them is looked into.
        let mut shared: Vec<NostrGroupId> = large.into_iter().take(LOOKED_INTO_MAX).collect();
        let names: Vec<String> = inline.iter().map(|id| self.names.group(id)).collect();
        for names in names.chunks(VALUES_MAX) {
            let found = self.client.query(query::groups_with_member(&self.names, names, owner)).await?;
            documents += found.charged;
            let ids = found.documents.iter().filter_map(|it| NostrGroupId::parse(it.text(field::GROUP)?));
            shared.extend(ids.take(LOOKED_INTO_MAX));
        }
        for id in shared.iter().take(2 * LOOKED_INTO_MAX) {
            let (has_acted, read) = self.has_acted(id, owner).await?;
            documents += read;
            if has_acted {
                return Ok((true, Cost::of_documents(documents)));
            }
        }
        Ok((false, Cost::of_documents(documents)))
    }
}

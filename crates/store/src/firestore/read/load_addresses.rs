//! The addresses that a batch needs, and the events that hold them.

use nostr_protocol::{EventId, UnixSecs};

use super::load::{EventNumbers, ReadDocuments};
use crate::{
    decide::facts::{AddressHolder, Facts, Wanted},
    firestore::{
        Inner,
        documents::names::field,
        wire::{
            client::GetAnswer,
            fail::Fail,
            value::{ReadFields as _, Unpack, Version},
        },
    },
};

/// The document of an address.
#[derive(Clone, Debug)]
pub(crate) struct AddressDoc {
    pub(crate) version: Version,
    pub(crate) holder: Option<(EventId, UnixSecs, UnixSecs)>,
    pub(crate) deleted_until: Option<UnixSecs>,
}

impl Inner {
    /// Holders of addresses that are still stored. The service may remove an event before its address.
    pub(super) async fn get_holders(&self, wanted: &Wanted, plain: &GetAnswer) -> Result<GetAnswer, Fail> {
        let documents = wanted.addresses.iter().filter_map(|address| plain.get(&self.names.address(address)));
        let ids = documents.filter_map(|document| EventId::from_hex(document.text("event")?));
        self.client.get(ids.map(|id| self.names.event(&id)).collect(), Some(&["place"])).await
    }

    pub(super) fn read_addresses(
        &self,
        wanted: &Wanted,
        plain: &GetAnswer,
        holders: &GetAnswer,
        numbers: &mut EventNumbers,
        facts: &mut Facts,
        documents: &mut ReadDocuments,
    ) -> Result<(), Fail> {
        for address in &wanted.addresses {
            let document = plain.get(&self.names.address(address));
            let deleted_until = document.and_then(|it| it.secs(field::DELETED_UNTIL));
            if let Some(until) = deleted_until {
                facts.address_tombstones.insert(*address, until);
            }
            let named = document.and_then(|it| {
                let id = EventId::from_hex(it.text("event")?)?;
                Some((id, it.secs(field::CREATED_AT)?, it.secs("expires")?))
            });
            let author = Unpack(address).key().ok_or(Fail::Damaged("an address"))?;
            let is_there = |(id, created_at, _): &(EventId, UnixSecs, UnixSecs)| {
                holders.get(&self.names.event(id)).is_some()
                    && facts.vanished.get(&author).is_none_or(|until| created_at > until)
            };
            let holder = named.filter(is_there).map(|(id, created_at, expires)| {
                let expires_at = if i64::try_from(expires) == Ok(i64::MAX) { u64::MAX } else { expires };
                (id, created_at, expires_at)
            });
            if let Some((id, created_at, expires_at)) = holder {
                facts
                    .holders
                    .insert(*address, AddressHolder { at: numbers.of(id), id, created_at, expires_at, rows: 0 });
            }
            documents.addresses.insert(*address, AddressDoc { version: Version::of(document), holder, deleted_until });
        }
        Ok(())
    }
}

//! Export, page by page in a stable order: documents by their names, groups by their ids, events as in
//! [`super::export_events`].

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::{GroupStatus, ManagedGroup, NostrGroupId};
use nostr_protocol::{DAY_SECS, PublicKey, UnixSecs, hex};

use crate::{
    firestore::{
        Inner,
        documents::{
            names::{Collection, field},
            query,
        },
        read::load::foundings,
        wire::{
            fail::Fail,
            value::{ReadFields as _, id_of},
        },
    },
    moving::{ExportBounds, ExportPage, ExportPosition, Exported, Part, Record, after_part},
};

/// Most documents that one query of an export reads.
pub(crate) const QUERY_DOCUMENTS_MAX: usize = 1_000;
/// Most groups that one query of an export reads; each may have 10,000 members.
const PAGE_GROUPS_MAX: usize = 32;
/// Most groups whose members are read at one time.
const GROUP_READS_MAX: usize = 4;

impl Inner {
    /// See [`crate::moving::Moving::export`].
    pub(crate) async fn export(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, Fail> {
        let limit = bounds.records_max.clamp(1, QUERY_DOCUMENTS_MAX);
        let (collection, fields): (_, &[&str]) = match from.part() {
            Part::Vanished => (Collection::Vanished, &["until"]),
            Part::Tombstones => (Collection::Tombstones, &["public"]),
            Part::AddressTombstones => (Collection::Addresses, &[field::DELETED_UNTIL]),
            Part::Claimed => (Collection::Claimed, &[field::NAME]),
            Part::Founded => (Collection::Founders, &["times"]),
            Part::Unlisted => (Collection::Groups, &[field::GROUP, "unlisted"]),
            Part::Groups => (Collection::Groups, &[field::GROUP, field::MANAGED]),
            Part::Events => return self.export_events(from, bounds, now).await,
        };
        let limit = if from.part() == Part::Groups { limit.min(PAGE_GROUPS_MAX) } else { limit };
        let behind = std::str::from_utf8(from.behind()).map_err(|_| Fail::Damaged("a place in an export"))?;
        let behind = (!behind.is_empty()).then_some(behind);
        let asked = match collection {
            Collection::Groups => query::every_group(&self.names, behind, fields, limit),
            _ => {
                let behind = behind.map(|id| self.names.named(collection, id));
                query::every(&self.names, collection, behind.as_deref(), fields, limit)
            }
        };
        let documents = self.client.query(asked).await?.documents;
        let reads: Vec<_> = documents.iter().map(|document| self.record_of(from.part(), document, now)).collect();
        let mut reads = stream::iter(reads).buffered(GROUP_READS_MAX);
        let (mut records, mut bytes, mut looked) = (Vec::new(), 0, 0_usize);
        while bytes < bounds.bytes_max.max(1)
            && let Some(found) = reads.try_next().await?
        {
            looked += 1;
            bytes += found.as_ref().map_or(0, Record::byte_len);
            records.extend(found);
        }
        let last = match documents.get(looked.saturating_sub(1)) {
            Some(last) if looked == limit || looked < documents.len() => {
                let key = if collection == Collection::Groups { last.text(field::GROUP) } else { Some(id_of(last)) };
                Some(key.ok_or(Fail::Damaged("a group's head"))?.as_bytes().to_vec())
            }
            _ => None,
        };
        Ok(ExportPage { records, next: after_part(from, last) })
    }

    async fn record_of(
        &self,
        part: Part,
        document: &Document,
        now: UnixSecs,
    ) -> Result<Option<Record<Exported>>, Fail> {
        let damaged = || Fail::Damaged("what an export reads");
        let id = id_of(document);
        Ok(match part {
            Part::Vanished => {
                let key = PublicKey::from_hex(id).ok_or_else(damaged)?;
                Some(Record::Vanished { key, at: document.secs("until").ok_or_else(damaged)? })
            }
            Part::Tombstones => {
                let (target, deleter) = fronts(id).ok_or_else(damaged)?;
                Some(Record::Tombstone { target, deleter, public: document.flag("public") })
            }
            Part::AddressTombstones => match document.secs(field::DELETED_UNTIL) {
                Some(until) => {
                    let address = hex::parse_lower(id.as_bytes()).ok_or_else(damaged)?;
                    Some(Record::AddressTombstone { address, until })
                }
                None => None,
            },
            Part::Claimed => {
                let (owner, content) = fronts(id).ok_or_else(damaged)?;
                Some(Record::Claimed { owner, content })
            }
            Part::Founded => {
                let mut at = foundings(Some(document))?;
                at.retain(|at| at.saturating_add(DAY_SECS) > now);
                at.sort_unstable();
                let key = PublicKey::from_hex(id).ok_or_else(damaged)?;
                (!at.is_empty()).then_some(Record::Founded { key, at })
            }
            Part::Unlisted => {
                let id = group_of(document)?;
                document.flag("unlisted").then_some(Record::Unlisted(id))
            }
            Part::Groups if document.flag(field::MANAGED) => {
                let id = group_of(document)?;
                match self.group_with_invited(&id).await? {
                    (GroupStatus::Managed(view), invited) => {
                        Some(Record::Group { id, view: ManagedGroup::clone(&view), invited })
                    }
                    (GroupStatus::Unlisted | GroupStatus::Unknown, _) => None,
                }
            }
            Part::Groups | Part::Events => None,
        })
    }
}

/// Two fronts from a document's name.
fn fronts(id: &str) -> Option<([u8; 16], [u8; 16])> {
    let (one, other) = id.split_once('_')?;
    Some((hex::parse_lower(one.as_bytes())?, hex::parse_lower(other.as_bytes())?))
}

fn group_of(document: &Document) -> Result<NostrGroupId, Fail> {
    document.text(field::GROUP).and_then(NostrGroupId::parse).ok_or(Fail::Damaged("a group's head"))
}

//! Receipts: the answers to claims, kept for repetitions of their requests.
//!
//! Source: docs/rules.md, "Claims" 7. A KeyPackage that was used up is in no other place of the store, so the receipt
//! holds the events themselves.

use bytes::Bytes;
use nostr_extensions::Stamp;
use nostr_protocol::{Event, UnixSecs};

use super::{claim::Handed, ledger::Unpack};
use crate::{Claimed, RECEIPT_SECS, ReceiptName, Repetition};

/// A kept answer.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    request: [u8; 16],
    at: UnixSecs,
    remaining: usize,
    handed: Vec<Handed>,
}

impl Receipt {
    /// The receipt of an answer at `now`.
    pub(crate) const fn new(name: &ReceiptName, handed: Vec<Handed>, remaining: usize, now: UnixSecs) -> Self {
        Self { request: name.request, at: now, remaining, handed }
    }

    /// The time from which on it is absent.
    pub(crate) const fn until(&self) -> UnixSecs {
        self.at.saturating_add(RECEIPT_SECS)
    }

    /// The answer to a request of the same name. Events of an owner that vanished since are left out.
    pub(crate) fn answer(self, name: &ReceiptName, vanished: Option<UnixSecs>) -> Claimed {
        if self.request != name.request {
            return Claimed { repetition: Repetition::OfAnother, ..Claimed::default() };
        }
        let is_there = |handed: &Handed| vanished.is_none_or(|until| handed.event.created_at() > until);
        Claimed {
            given: self.handed.into_iter().filter(is_there).map(Handed::seal).collect(),
            remaining: self.remaining,
            repetition: Repetition::Of(self.at),
            ..Claimed::default()
        }
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        packed.extend_from_slice(&self.request);
        packed.extend_from_slice(&self.at.to_be_bytes());
        packed.extend_from_slice(&(self.remaining as u64).to_be_bytes());
        for Handed { event, stamp, filter, is_used_up } in &self.handed {
            packed.push(u8::from(*is_used_up));
            let record = event.record();
            for number in [*filter as u64, stamp.cursor, stamp.received_at, stamp.expires_at, record.len() as u64] {
                packed.extend_from_slice(&number.to_be_bytes());
            }
            packed.extend_from_slice(record);
        }
        packed
    }

    /// `None` for bytes that [`Self::pack`] did not make.
    pub(crate) fn unpack(packed: &[u8]) -> Option<Self> {
        let mut left = Unpack(packed);
        let (request, at, remaining) = (left.array()?, left.u64()?, usize::try_from(left.u64()?).ok()?);
        let mut handed = Vec::new();
        while !left.is_empty() {
            let is_used_up = left.byte()? == 1;
            let filter = usize::try_from(left.u64()?).ok()?;
            let (cursor, received_at, expires_at) = (left.u64()?, left.u64()?, left.u64()?);
            let length = usize::try_from(left.u64()?).ok()?;
            let event = Event::from_record(Bytes::copy_from_slice(left.take(length)?))?;
            let stamp = Stamp { cursor, received_at, expires_at, author_only: false };
            handed.push(Handed { event, stamp, filter, is_used_up });
        }
        Some(Self { request, at, remaining, handed })
    }
}

//! A message from one instance to the others, as bytes.
//!
//! It holds a version, the sending instance, a flag that says whether something was committed, and how often which
//! buckets were paid from. The buckets are hashes under a key of the store's, so a reader without the key cannot tell
//! whose they are.

use crate::rate_limit::{BucketId, BucketKind, Charge};

/// Most buckets that one message names.
pub(super) const CHARGES_MAX: usize = 256;
/// Version of the layout.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 18;
const CHARGE_BYTES: usize = 13;
/// Most bytes of a message.
pub(super) const BYTES_MAX: usize = HEAD_BYTES + CHARGES_MAX * CHARGE_BYTES;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerMessage {
    /// The sender; an instance passes over its own messages.
    pub(super) instance: [u8; 16],
    /// Set when something was committed; a message without it only shows that the channel works.
    pub(super) has_commits: bool,
    /// The costs of accepted events.
    pub(super) charges: Vec<Charge>,
}

impl PeerMessage {
    /// The message as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + CHARGE_BYTES * self.charges.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.instance);
        bytes.push(u8::from(self.has_commits));
        for Charge { bucket, times } in self.charges.iter().take(CHARGES_MAX) {
            bytes.push(bucket.kind as u8);
            bytes.extend_from_slice(&bucket.hash.to_be_bytes());
            bytes.extend_from_slice(&times.to_be_bytes());
        }
        bytes
    }

    /// Reads the bytes that [`PeerMessage::encode`] wrote; `None` for any others. Kinds of buckets that this version
    /// does not have, and charges past [`CHARGES_MAX`], are left out.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, bytes) = bytes.split_first()? else { return None };
        let (instance, bytes) = bytes.split_first_chunk::<16>()?;
        let (has_commits, bytes) = bytes.split_first()?;
        let (charges, rest) = bytes.as_chunks::<CHARGE_BYTES>();
        let read = |[kind, bytes @ ..]: &[u8; CHARGE_BYTES]| {
            let (hash, times) = bytes.split_first_chunk::<8>()?;
            let bucket = BucketId { kind: BucketKind::from_byte(*kind)?, hash: u64::from_be_bytes(*hash) };
            Some(Charge { bucket, times: u32::from_be_bytes(times.try_into().ok()?) })
        };
        let charges = charges.iter().take(CHARGES_MAX).filter_map(read).collect();
        rest.is_empty().then_some(Self { instance: *instance, has_commits: *has_commits != 0, charges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: usize) -> PeerMessage {
        let bucket = |n: usize| BucketId { kind: BucketKind::SenderEvents, hash: n as u64 };
        let charges = (0..n).map(|n| Charge { bucket: bucket(n), times: 3 }).collect();
        PeerMessage { instance: [7; 16], has_commits: true, charges }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for n in [0, 1, CHARGES_MAX] {
            assert_eq!(PeerMessage::decode(&message(n).encode()), Some(message(n)));
        }
        assert_eq!(PeerMessage::decode(&message(CHARGES_MAX + 9).encode()), Some(message(CHARGES_MAX)));
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        let good = message(2).encode();
        for end in (0..good.len()).filter(|end| *end < HEAD_BYTES || !(end - HEAD_BYTES).is_multiple_of(CHARGE_BYTES)) {
            assert_eq!(PeerMessage::decode(&good[..end]), None, "{end}");
        }
        let mut other = good.clone();
        other[0] = 2;
        assert_eq!(PeerMessage::decode(&other), None);
        let mut unknown = good;
        unknown[HEAD_BYTES] = 200;
        assert_eq!(PeerMessage::decode(&unknown).map(|message| message.charges.len()), Some(1));
    }
}

//! A message from one instance to the others, as bytes.
//!
//! It holds a version, the sending instance, the message's number and time, flags that say whether something was
//! committed or ordered, its sender's [announcement](super::announcement) where it is due, how often which buckets were
//! paid from, and a code over all of it. The code and the names of
//! the buckets are made under keys of the store's: a stranger who reaches the channel can neither make a message nor
//! tell whose buckets it names.

use std::hash::Hasher as _;

use nostr_extensions::RouteHasher;
use siphasher::sip128::{Hash128, Hasher128 as _, SipHasher24};

use super::announcement::{Announcement, PART, PART_BYTES, PARTS_MAX};
use crate::rate_limit::{BucketId, BucketKind, Charge};

/// Most buckets that one message names.
pub(super) const CHARGES_MAX: usize = 256;
/// Most events that one message charges to a bucket. A bucket's debt is bounded too, so more would change nothing.
pub(super) const CHARGE_TIMES_MAX: u32 = 1_000;
/// Version of the layout. Version 1 had neither number nor time nor code.
const VERSION: u8 = 2;
/// Flag of a message whose sender committed something.
const COMMITS: u8 = 1;
/// Flag of a message whose sender carried out an order of management. A release that does not know it looks at the log.
const ORDERS: u8 = 2;
/// Flag of a message that has an announcement in front of its charges. A release that does not know it takes the
/// announcement for charges of buckets that it does not have.
const ANNOUNCES: u8 = 4;
const HEAD_BYTES: usize = 34;
const CHARGE_BYTES: usize = 13;
const CODE_BYTES: usize = 16;

const _: () = assert!(CHARGE_BYTES == 1 + PART_BYTES && PARTS_MAX < CHARGES_MAX, "parts take the place of charges");

/// Most bytes of a message.
pub(super) const BYTES_MAX: usize = HEAD_BYTES + CHARGES_MAX * CHARGE_BYTES + CODE_BYTES;

/// The secret of the instances that share a store, by which they know each other's messages.
#[derive(Clone)]
pub(super) struct MessageKey(SipHasher24);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerMessage {
    /// The sender; an instance passes over its own messages.
    pub(super) instance: [u8; 16],
    /// The sender's messages have rising numbers, so a repeated one is known.
    pub(super) number: u64,
    /// Time of sending, in milliseconds since 1970.
    pub(super) sent_ms: u64,
    /// Set when something was committed; a message without it only shows that the channel works.
    pub(super) has_commits: bool,
    /// Set when an order of management was carried out.
    pub(super) has_orders: bool,
    /// The sender's statement about itself, where it is due.
    pub(super) announcement: Option<Announcement>,
    /// The costs of accepted events.
    pub(super) charges: Vec<Charge>,
}

impl MessageKey {
    /// The key of all instances that share the store of `hasher`.
    pub(super) fn new(hasher: &RouteHasher) -> Self {
        let [a, b] = ["messages between instances, 1", "messages between instances, 2"].map(|it| hasher.derived(it));
        Self(SipHasher24::new_with_keys(a, b))
    }

    fn code(&self, bytes: &[u8]) -> Hash128 {
        let mut hasher = self.0;
        hasher.write(bytes);
        hasher.finish128()
    }
}

impl PeerMessage {
    /// The message as bytes, with its code under `key`.
    pub(super) fn encode(&self, key: &MessageKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + CHARGE_BYTES * self.charges.len() + CODE_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.instance);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.sent_ms.to_be_bytes());
        let announced = self.announcement.as_ref().map(Announcement::parts).unwrap_or_default();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let (commits, orders) = (flag(self.has_commits, COMMITS), flag(self.has_orders, ORDERS));
        bytes.push(commits | orders | flag(!announced.is_empty(), ANNOUNCES));
        for part in &announced {
            bytes.push(PART);
            bytes.extend_from_slice(part);
        }
        for Charge { bucket, times } in self.charges.iter().take(CHARGES_MAX - announced.len()) {
            bytes.push(bucket.kind as u8);
            bytes.extend_from_slice(&bucket.hash.to_be_bytes());
            bytes.extend_from_slice(&times.min(&CHARGE_TIMES_MAX).to_be_bytes());
        }
        let code = key.code(&bytes);
        bytes.extend_from_slice(&code.as_u128().to_be_bytes());
        bytes
    }

    /// Reads the bytes that [`PeerMessage::encode`] wrote under the same key; `None` for any others. Kinds of buckets
    /// that this version does not have are left out, and a charge counts for at most [`CHARGE_TIMES_MAX`] events.
    pub(super) fn decode(bytes: &[u8], key: &MessageKey) -> Option<Self> {
        if bytes.len() > BYTES_MAX || bytes.first() != Some(&VERSION) {
            return None;
        }
        let (signed, code) = bytes.split_last_chunk::<CODE_BYTES>()?;
        // The comparison takes the same time wherever the codes differ.
        if key.code(signed) != Hash128::from(u128::from_be_bytes(*code)) {
            return None;
        }
        let (instance, bytes) = signed.get(1..)?.split_first_chunk::<16>()?;
        let (number, bytes) = bytes.split_first_chunk::<8>()?;
        let (sent_ms, bytes) = bytes.split_first_chunk::<8>()?;
        let (flags, bytes) = bytes.split_first()?;
        let (charges, rest) = bytes.as_chunks::<CHARGE_BYTES>();
        let announced = if flags & ANNOUNCES == 0 { 0 } else { charges.iter().take_while(|it| it[0] == PART).count() };
        let (announced, charges) = charges.split_at(announced);
        let announced: Vec<[u8; PART_BYTES]> = announced.iter().map(|[_, part @ ..]| *part).collect();
        let read = |[kind, bytes @ ..]: &[u8; CHARGE_BYTES]| {
            let (hash, times) = bytes.split_first_chunk::<8>()?;
            let bucket = BucketId { kind: BucketKind::from_byte(*kind)?, hash: u64::from_be_bytes(*hash) };
            let times = u32::from_be_bytes(times.try_into().ok()?).min(CHARGE_TIMES_MAX);
            Some(Charge { bucket, times })
        };
        rest.is_empty().then(|| Self {
            instance: *instance,
            number: u64::from_be_bytes(*number),
            sent_ms: u64::from_be_bytes(*sent_ms),
            has_commits: flags & COMMITS != 0,
            has_orders: flags & ORDERS != 0,
            announcement: Announcement::read(&announced),
            charges: charges.iter().filter_map(read).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MessageKey {
        MessageKey::new(&RouteHasher::new(&[byte; 16]))
    }

    fn message(n: usize) -> PeerMessage {
        let bucket = |n: usize| BucketId { kind: BucketKind::SenderEvents, hash: n as u64 };
        let charges = (0..n).map(|n| Charge { bucket: bucket(n), times: 3 }).collect();
        PeerMessage {
            instance: [7; 16],
            number: 9,
            sent_ms: 1_795_370_831_000,
            has_commits: true,
            has_orders: n == 1,
            announcement: None,
            charges,
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for n in [0, 1, CHARGES_MAX] {
            let bytes = message(n).encode(&key(1));
            assert!(bytes.len() <= BYTES_MAX);
            assert_eq!(PeerMessage::decode(&bytes, &key(1)), Some(message(n)));
        }
        let bytes = message(CHARGES_MAX + 9).encode(&key(1));
        assert_eq!(PeerMessage::decode(&bytes, &key(1)), Some(message(CHARGES_MAX)));
        let mut much = message(1);
        much.charges[0].times = u32::MAX;
        let read = PeerMessage::decode(&much.encode(&key(1)), &key(1)).expect("a message");
        assert_eq!(read.charges[0].times, CHARGE_TIMES_MAX);
    }

    #[test]
    fn an_announcement_takes_the_place_of_some_charges() {
        let announcement = Announcement { uptime_secs: 7, version: "1".to_owned(), not_ready: None };
        for (n, read) in [(0, 0), (2, 2), (CHARGES_MAX, CHARGES_MAX - 1)] {
            let sent = PeerMessage { announcement: Some(announcement.clone()), ..message(n) };
            let bytes = sent.encode(&key(1));
            assert!(bytes.len() <= BYTES_MAX);
            let mut expected = sent;
            expected.charges.truncate(read);
            assert_eq!(PeerMessage::decode(&bytes, &key(1)), Some(expected), "{n}");
            // An earlier release knows neither the flag nor a bucket of this kind.
            let mut earlier = bytes[..bytes.len() - CODE_BYTES].to_vec();
            earlier[HEAD_BYTES - 1] &= !ANNOUNCES;
            earlier.extend_from_slice(&key(1).code(&earlier).as_u128().to_be_bytes());
            let charges = PeerMessage::decode(&earlier, &key(1)).expect("a message").charges;
            assert_eq!(charges, message(read).charges, "{n}");
        }
    }

    #[test]
    fn what_is_no_message_of_this_store_is_not_read() {
        let good = message(2).encode(&key(1));
        assert_eq!(PeerMessage::decode(&good, &key(2)), None, "another store's");
        for end in 0..good.len() {
            assert_eq!(PeerMessage::decode(&good[..end], &key(1)), None, "{end}");
        }
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_eq!(PeerMessage::decode(&other, &key(1)), None, "{at}");
        }
        let mut unknown = good[..good.len() - CODE_BYTES].to_vec();
        unknown[HEAD_BYTES] = 200;
        unknown.extend_from_slice(&key(1).code(&unknown).as_u128().to_be_bytes());
        assert_eq!(PeerMessage::decode(&unknown, &key(1)).map(|message| message.charges.len()), Some(1));
    }
}

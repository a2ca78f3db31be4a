//! What one instance tells the others, as bytes.
//!
//! A version, who sends it, whether there is something new in the log, and how often which buckets were paid from. The
//! buckets are hashes under a key of the store's: nobody else can tell whose they are.

use crate::rate_limit::{Debit, Purse, Spent};

/// Most buckets that one message tells of.
pub const SPENT_MAX: usize = 256;
/// The layout that follows.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 18;
const SPENT_BYTES: usize = 13;
/// Most bytes of a message.
pub(super) const BYTES_MAX: usize = HEAD_BYTES + SPENT_MAX * SPENT_BYTES;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sends it; what an instance hears from itself is no news.
    pub instance: [u8; 16],
    /// Whether something was committed. Else it says that the road is open.
    pub knocks: bool,
    /// What accepted events cost.
    pub spent: Vec<Spent>,
}

impl Message {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + SPENT_BYTES * self.spent.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.instance);
        bytes.push(u8::from(self.knocks));
        for Spent { debit, times } in self.spent.iter().take(SPENT_MAX) {
            bytes.push(debit.purse as u8);
            bytes.extend_from_slice(&debit.hash.to_be_bytes());
            bytes.extend_from_slice(&times.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Message::encode`] wrote; `None` for anything else. Buckets that this version does not have, and those
    /// past [`SPENT_MAX`], are left out.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, bytes) = bytes.split_first()? else { return None };
        let (instance, bytes) = bytes.split_first_chunk::<16>()?;
        let (knocks, bytes) = bytes.split_first()?;
        let (spent, rest) = bytes.as_chunks::<SPENT_BYTES>();
        let read = |[purse, bytes @ ..]: &[u8; SPENT_BYTES]| {
            let (hash, times) = bytes.split_first_chunk::<8>()?;
            let debit = Debit { purse: Purse::from_byte(*purse)?, hash: u64::from_be_bytes(*hash) };
            Some(Spent { debit, times: u32::from_be_bytes(times.try_into().ok()?) })
        };
        let spent = spent.iter().take(SPENT_MAX).filter_map(read).collect();
        rest.is_empty().then_some(Self { instance: *instance, knocks: *knocks != 0, spent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: usize) -> Message {
        let debit = |n: usize| Debit { purse: Purse::SenderEvents, hash: n as u64 };
        let spent = (0..n).map(|n| Spent { debit: debit(n), times: 3 }).collect();
        Message { instance: [7; 16], knocks: true, spent }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for n in [0, 1, SPENT_MAX] {
            assert_eq!(Message::decode(&message(n).encode()), Some(message(n)));
        }
        assert_eq!(Message::decode(&message(SPENT_MAX + 9).encode()), Some(message(SPENT_MAX)));
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        let good = message(2).encode();
        for end in (0..good.len()).filter(|end| *end < HEAD_BYTES || !(end - HEAD_BYTES).is_multiple_of(SPENT_BYTES)) {
            assert_eq!(Message::decode(&good[..end]), None, "{end}");
        }
        let mut other = good.clone();
        other[0] = 2;
        assert_eq!(Message::decode(&other), None);
        let mut unknown = good;
        unknown[HEAD_BYTES] = 200;
        assert_eq!(Message::decode(&unknown).map(|message| message.spent.len()), Some(1));
    }
}

//! The receiving side of a channel: the messages of other instances that are believed, and how far.
//!
//! Anyone who reaches the channel may repeat a message, so a message counts once: its code proves who sent it, its time
//! that it is new, and its number that it was not received before. An instance is believed in so much a second, so that
//! one that goes wrong spends little of the others' time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{PeerChannel, message::PeerMessage};
use crate::{observe::metrics::Metrics, rate_limit::RateLimits};

/// Longest time, in milliseconds, between the sending of a message and its receipt, by the clocks of both instances.
const MESSAGE_AGE_MS_MAX: u64 = 10_000;
/// Most instances of which the last message is remembered, at about 60 bytes.
const INSTANCES_MAX: usize = 1_024;
/// Most buckets a second that one instance charges here.
const CHARGES_PER_SEC_MAX: u64 = 5_000;
/// Most buckets that one instance charges here at once.
const CHARGES_AT_ONCE_MAX: u64 = 2 * CHARGES_PER_SEC_MAX;

/// See the module.
pub(super) struct PeerReceiver {
    pub(super) channel: Arc<PeerChannel>,
    /// The buckets from which the events of other instances are paid too.
    limits: Arc<RateLimits>,
    metrics: Arc<Metrics>,
    /// Told when another instance has carried out an order of management.
    ordered: Arc<Notify>,
    instances: Mutex<HashMap<[u8; 16], Instance>>,
}

/// Another instance, as its messages tell.
struct Instance {
    /// Number of its last message.
    number: u64,
    /// Time of that message's receipt.
    received_ms: u64,
    /// Charges that it may still make at once, in thousandths.
    credit: u64,
}

/// The use of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The message is not believed and had no effect.
    Dropped,
    /// This instance sent the message, which shows that the channel works.
    Own,
    /// Another instance sent the message. The flag says that it committed something.
    Others { has_commits: bool },
}

impl PeerReceiver {
    pub(super) fn new(
        channel: Arc<PeerChannel>,
        limits: Arc<RateLimits>,
        metrics: Arc<Metrics>,
        ordered: Arc<Notify>,
    ) -> Self {
        Self { channel, limits, metrics, ordered, instances: Mutex::default() }
    }

    /// Takes in a message: charges the buckets that it names.
    pub(super) fn receive(&self, message: &[u8]) -> Received {
        match self.believe(message) {
            Ok(received) => received,
            Err(reason) => {
                self.metrics.peer_message_dropped(reason);
                Received::Dropped
            }
        }
    }

    fn believe(&self, message: &[u8]) -> Result<Received, &'static str> {
        let message = PeerMessage::decode(message, &self.channel.key).ok_or("forged")?;
        let now_ms = self.channel.clock.now_ms();
        if message.sent_ms.abs_diff(now_ms) > MESSAGE_AGE_MS_MAX {
            return Err("old");
        }
        if message.instance == self.channel.instance {
            return Ok(Received::Own);
        }
        let believed = self.credit(&message, now_ms)?;
        if message.has_orders {
            self.ordered.notify_one();
        }
        if let Some(announcement) = &message.announcement {
            self.channel.announced.note(message.instance, announcement.clone(), now_ms);
        }
        let mut heard = true;
        for charge in message.charges.iter().take(believed) {
            heard &= self.limits.charge(*charge, now_ms);
        }
        if believed < message.charges.len() || !heard {
            // The rest of the message stands.
            self.metrics.peer_message_dropped("excess");
        }
        Ok(Received::Others { has_commits: message.has_commits })
    }

    /// Notes the message, and gives the number of its charges that count.
    fn credit(&self, message: &PeerMessage, now_ms: u64) -> Result<usize, &'static str> {
        const MILLI: u64 = 1_000;
        let mut instances = self.instances.lock();
        if !instances.contains_key(&message.instance) && instances.len() >= INSTANCES_MAX {
            // A repeated message of an instance that is forgotten here is old by now.
            instances.retain(|_, it| now_ms.saturating_sub(it.received_ms) <= 2 * MESSAGE_AGE_MS_MAX);
            if instances.len() >= INSTANCES_MAX {
                return Err("excess");
            }
        }
        let fresh = Instance { number: 0, received_ms: now_ms, credit: CHARGES_AT_ONCE_MAX * MILLI };
        let instance = instances.entry(message.instance).or_insert(fresh);
        if message.number <= instance.number {
            return Err("repeated");
        }
        let earned = now_ms.saturating_sub(instance.received_ms).saturating_mul(CHARGES_PER_SEC_MAX);
        let credit = instance.credit.saturating_add(earned).min(CHARGES_AT_ONCE_MAX * MILLI);
        let believed = (credit / MILLI).min(message.charges.len() as u64);
        *instance = Instance { number: message.number, received_ms: now_ms, credit: credit - believed * MILLI };
        Ok(usize::try_from(believed).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use nostr_extensions::RouteHasher;

    use super::{
        super::{Announcement, Seen, message::MessageKey},
        *,
    };
    use crate::{
        config::RateLimitRates,
        rate_limit::{BucketId, BucketKind, Charge},
        system::clock::{Clock as _, SetClock},
    };

    const NOW: u64 = 1_795_370_831;
    const AGE_SECS_MAX: u64 = MESSAGE_AGE_MS_MAX / 1_000;

    struct World {
        receiver: PeerReceiver,
        limits: Arc<RateLimits>,
        clock: Arc<SetClock>,
    }

    fn world() -> World {
        let hasher = RouteHasher::new(&[1; 16]);
        let limits = Arc::new(RateLimits::new(&RateLimitRates::default(), 0, &hasher));
        let clock = Arc::new(SetClock::at(NOW));
        let channel = Arc::new(PeerChannel::new(&hasher, Arc::<SetClock>::clone(&clock)));
        let receiver = PeerReceiver::new(channel, Arc::clone(&limits), Arc::default(), Arc::default());
        World { receiver, limits, clock }
    }

    fn bucket(hash: u64) -> BucketId {
        BucketId { kind: BucketKind::AddressEvents, hash }
    }

    fn message(number: u64, charges: Vec<Charge>) -> PeerMessage {
        PeerMessage {
            instance: [9; 16],
            number,
            sent_ms: NOW * 1_000,
            has_commits: true,
            has_orders: false,
            announcement: None,
            charges,
        }
    }

    fn charging(number: u64, hash: u64, times: u32) -> PeerMessage {
        message(number, vec![Charge { bucket: bucket(hash), times }])
    }

    const BELIEVED: Received = Received::Others { has_commits: true };

    #[tokio::test]
    async fn the_news_of_an_order_is_passed_on() {
        use futures_util::FutureExt as _;
        let World { receiver, .. } = world();
        let is_told = || receiver.ordered.notified().now_or_never().is_some();
        receiver.receive(&message(1, Vec::new()).encode(&receiver.channel.key));
        assert!(!is_told());
        let order = PeerMessage { has_orders: true, has_commits: false, ..message(2, Vec::new()) };
        let received = receiver.receive(&order.encode(&receiver.channel.key));
        assert_eq!((received, is_told()), (Received::Others { has_commits: false }, true));
    }

    #[test]
    fn an_announcement_counts_once_and_of_others_alone() {
        let World { receiver, clock, .. } = world();
        let announcement = Announcement { uptime_secs: 7, version: "1".to_owned(), not_ready: None };
        let message = PeerMessage { announcement: Some(announcement.clone()), ..message(1, Vec::new()) };
        let own = PeerMessage { instance: receiver.channel.instance, ..message.clone() };
        receiver.receive(&own.encode(&receiver.channel.key));
        let strangers = MessageKey::new(&RouteHasher::new(&[2; 16]));
        receiver.receive(&message.encode(&strangers));
        assert_eq!(receiver.channel.seen(), []);
        let sent = message.encode(&receiver.channel.key);
        receiver.receive(&sent);
        let seen = Seen { instance: [9; 16], at_ms: NOW * 1_000, announcement };
        assert_eq!(receiver.channel.seen(), std::slice::from_ref(&seen));
        clock.set(NOW + 1);
        receiver.receive(&sent);
        assert_eq!(receiver.channel.seen(), [seen], "a repeated one keeps nobody in the list");
    }

    #[test]
    fn a_forged_message_charges_nobody() {
        let World { receiver, limits, .. } = world();
        let strangers = MessageKey::new(&RouteHasher::new(&[2; 16]));
        let mut changed = charging(1, 5, 1).encode(&receiver.channel.key);
        changed[40] ^= 1;
        // The layout of the first release, which anyone could make.
        let mut first = vec![1];
        first.extend_from_slice(&[9; 16]);
        first.push(1);
        first.extend_from_slice(&[0; 13]);
        for forged in [charging(1, 5, 150).encode(&strangers), changed, first, Vec::new(), vec![2; 9_000]] {
            assert_eq!(receiver.receive(&forged), Received::Dropped);
        }
        assert_eq!(limits.tracked(), 0);
        assert_eq!(receiver.receive(&charging(1, 5, 150).encode(&receiver.channel.key)), BELIEVED);
        assert_eq!(limits.tracked(), 1);
    }

    #[test]
    fn a_repeated_message_counts_once() {
        let World { receiver, limits, clock } = world();
        let all = limits.left(bucket(5), NOW * 1_000);
        let spent = |hash| all - limits.left(bucket(hash), NOW * 1_000);
        let sent = charging(3, 5, 7).encode(&receiver.channel.key);
        assert_eq!(receiver.receive(&sent), BELIEVED);
        for _ in 0..50 {
            assert_eq!(receiver.receive(&sent), Received::Dropped);
        }
        assert_eq!(
            receiver.receive(&charging(2, 5, 7).encode(&receiver.channel.key)),
            Received::Dropped,
            "an earlier one"
        );
        assert_eq!(spent(5), 7);
        assert_eq!(receiver.receive(&charging(4, 6, 1).encode(&receiver.channel.key)), BELIEVED);
        // Nor does it count later, when its sender may be forgotten.
        let mut later = charging(9, 5, 7);
        for ahead in [false, true] {
            later.instance = [u8::from(ahead); 16];
            clock.set(if ahead { NOW - AGE_SECS_MAX - 1 } else { NOW + AGE_SECS_MAX + 1 });
            assert_eq!(receiver.receive(&later.encode(&receiver.channel.key)), Received::Dropped);
        }
        assert_eq!(spent(5), 7);
    }

    #[test]
    fn an_instance_is_believed_in_so_much_a_second() {
        let World { receiver, limits, clock } = world();
        let mut number = 0;
        let mut send = |from: u64, many: u64, at: u64| {
            number += 1;
            let charges = (from..from + many).map(|hash| Charge { bucket: bucket(hash), times: 1 }).collect();
            let message = PeerMessage { sent_ms: at * 1_000, ..message(number, charges) };
            assert_eq!(receiver.receive(&message.encode(&receiver.channel.key)), BELIEVED);
        };
        let per_message = 250;
        for n in 0..CHARGES_AT_ONCE_MAX / per_message + 20 {
            send(n * per_message, per_message, NOW);
        }
        assert_eq!(limits.tracked() as u64, CHARGES_AT_ONCE_MAX);
        clock.set(NOW + 1);
        for n in 0..40 {
            send(1_000_000 + n * per_message, per_message, NOW + 1);
        }
        assert_eq!(limits.tracked() as u64, CHARGES_AT_ONCE_MAX + CHARGES_PER_SEC_MAX);
    }

    #[test]
    fn instances_are_remembered_up_to_a_bound() {
        let World { receiver, clock, .. } = world();
        let from = |n: usize| {
            let mut instance = [0; 16];
            instance[..8].copy_from_slice(&n.to_be_bytes());
            PeerMessage { instance, sent_ms: clock.now_ms(), ..charging(1, 5, 1) }.encode(&receiver.channel.key)
        };
        for n in 0..INSTANCES_MAX {
            assert_eq!(receiver.receive(&from(n)), BELIEVED);
        }
        assert_eq!(receiver.receive(&from(INSTANCES_MAX)), Received::Dropped);
        clock.set(NOW + 2 * AGE_SECS_MAX + 1);
        assert_eq!(receiver.receive(&from(INSTANCES_MAX)), BELIEVED);
        assert_eq!(receiver.instances.lock().len(), 1);
    }
}

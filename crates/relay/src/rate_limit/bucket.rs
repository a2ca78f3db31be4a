//! Token buckets in a map that cannot grow without bound.
//!
//! A bucket that is full again equals a new one, so forgetting it gives nobody further events. A bucket that is not
//! full is never forgotten to make room: when a shard holds nothing else, newcomers to it share the buckets of their
//! address blocks ([`Overflow`]), and the owners of the others go on as before.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{BucketId, BucketKind, CEILING_FACTOR};

/// Number of maps, each with its own lock.
const SHARDS: usize = 64;
/// Share of a shard, as one part in so many, up to which charges of other instances make new buckets.
const HEARSAY_PART: usize = 2;
/// Shortest time between two searches of a shard at its bound for full buckets, so that a flood does not cost the
/// relay's time.
const SWEEP_PAUSE_MS: u64 = 1_000;
/// Most buckets of one kind that newcomers share by their address blocks.
const OVERFLOW_BUCKETS_MAX: u64 = 1_024;

/// A number of events a period, and a number at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Events a period; 0 means no limit.
    number: u32,
    period_ms: u32,
    burst: u32,
}

impl Rate {
    pub(super) const fn new(number: u32, period_ms: u32, burst: u32) -> Self {
        Self { number, period_ms, burst }
    }

    /// The rate of `factor` senders together.
    pub(super) const fn times(self, factor: u32) -> Self {
        Self {
            number: self.number.saturating_mul(factor),
            period_ms: self.period_ms,
            burst: self.burst.saturating_mul(factor),
        }
    }

    /// The same rate with another number at once.
    pub(super) const fn with_burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// Number of events at once.
    pub(super) const fn burst(self) -> u32 {
        self.burst
    }

    /// Returns whether there is no limit.
    pub(super) const fn is_unlimited(self) -> bool {
        self.number == 0
    }

    /// The level of a full bucket. One event takes `period_ms`, and `number` comes in each millisecond, so that all
    /// numbers are whole.
    const fn capacity(self) -> i64 {
        self.level_of(self.burst)
    }

    const fn level_of(self, events: u32) -> i64 {
        events as i64 * self.period_ms as i64
    }
}

/// A number of events to take from a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Events to take. A bucket that holds fewer when it is full gives all that it holds.
    pub(super) times: u32,
    /// Events that stay in the bucket for others.
    pub(super) reserve: u32,
}

impl Amount {
    /// So many events, of all that there are.
    pub(super) const fn of(times: u32) -> Self {
        Self { times, reserve: 0 }
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    level: i64,
    updated_ms: u64,
    first_ms: u64,
    rate: Rate,
}

impl Bucket {
    /// A full bucket.
    pub(super) const fn full(rate: Rate, now_ms: u64) -> Self {
        Self { level: rate.capacity(), updated_ms: now_ms, first_ms: now_ms, rate }
    }

    fn level_at(&self, now_ms: u64) -> i64 {
        let elapsed_ms = i64::try_from(now_ms.saturating_sub(self.updated_ms)).unwrap_or(i64::MAX);
        self.level.saturating_add(elapsed_ms.saturating_mul(self.rate.number.into())).min(self.rate.capacity())
    }

    fn fill(&mut self, now_ms: u64) {
        self.level = self.level_at(now_ms);
        self.updated_ms = self.updated_ms.max(now_ms);
    }

    /// Takes the amount, or gives the seconds until it is there.
    pub(super) fn take(&mut self, amount: Amount, now_ms: u64) -> Result<(), u64> {
        if self.rate.is_unlimited() {
            return Ok(());
        }
        self.fill(now_ms);
        let reserve = amount.reserve.min(self.rate.burst);
        let taken = self.rate.level_of(amount.times.min(self.rate.burst - reserve));
        let missing = taken + self.rate.level_of(reserve) - self.level;
        if missing <= 0 {
            self.level -= taken;
            return Ok(());
        }
        let per_sec = 1_000 * u64::from(self.rate.number);
        Err(missing.unsigned_abs().div_ceil(per_sec))
    }

    /// Returns whether `times` events are there, or gives the seconds until they are. A bucket that holds fewer when it
    /// is full has them then.
    fn holds(&self, times: u32, now_ms: u64) -> Result<(), u64> {
        let missing = self.rate.level_of(times.min(self.rate.burst)) - self.level_at(now_ms);
        if missing <= 0 {
            return Ok(());
        }
        Err(missing.unsigned_abs().div_ceil(1_000 * u64::from(self.rate.number)))
    }

    /// Takes `times` events, whether they are there or not; the debt stays under a burst.
    pub(super) fn charge(&mut self, times: u32, now_ms: u64) {
        self.fill(now_ms);
        self.level = self.level.saturating_sub(self.rate.level_of(times)).max(-self.rate.capacity());
    }

    /// Puts back events that were taken.
    fn put_back(&mut self, times: u32) {
        self.level =
            self.level.saturating_add(self.rate.level_of(times.min(self.rate.burst))).min(self.rate.capacity());
    }

    /// Number of whole events that the bucket holds.
    pub(super) fn events(&self, now_ms: u64) -> u32 {
        let events = self.level_at(now_ms) / i64::from(self.rate.period_ms);
        u32::try_from(events).unwrap_or(0)
    }
}

/// The rule by which a bucket may be forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) enum Eviction {
    /// A bucket is forgotten when it is full again.
    WhenFull,
    /// A bucket is forgotten when it is full again and was not used for `memory_ms`. If room is short, it is also
    /// forgotten when it is full again and was first used less than `known_after_ms` ago.
    WhenForgotten { memory_ms: u64, known_after_ms: u64 },
}

impl Eviction {
    fn forgets(self, bucket: &Bucket, now_ms: u64, room_is_short: bool) -> bool {
        let is_full = bucket.level_at(now_ms) == bucket.rate.capacity();
        let since = |then_ms: u64| now_ms.saturating_sub(then_ms);
        is_full
            && match self {
                Self::WhenFull => true,
                Self::WhenForgotten { memory_ms, known_after_ms } => {
                    since(bucket.updated_ms) >= memory_ms || (room_is_short && since(bucket.first_ms) < known_after_ms)
                }
            }
    }
}

/// One owner's claim on a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(super) bucket: BucketId,
    pub(super) rate: Rate,
    /// Hash of the address block by which newcomers share a bucket of this kind, while there is no room for their own.
    pub(super) shared: u64,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<u64, Bucket>,
    swept_ms: Option<u64>,
}

/// The buckets of newcomers while there is no room: one for each kind and block of addresses, with [`CEILING_FACTOR`]
/// times the rate of its kind. At most [`OVERFLOW_BUCKETS_MAX`] of one kind, so that some blocks share.
#[derive(Debug, Default)]
struct Overflow(HashMap<(BucketKind, u64), Bucket>);

impl Overflow {
    fn bucket(&mut self, account: &Account, now_ms: u64) -> &mut Bucket {
        let slot = (account.bucket.kind, account.shared % OVERFLOW_BUCKETS_MAX);
        let rate = account.rate.times(CEILING_FACTOR);
        let bucket = self.0.entry(slot).or_insert_with(|| Bucket::full(rate, now_ms));
        // An owner that cannot be remembered is always new.
        bucket.first_ms = now_ms;
        bucket
    }

    fn sweep(&mut self, now_ms: u64) {
        self.0.retain(|_, bucket| !Eviction::WhenFull.forgets(bucket, now_ms, false));
        if self.0.is_empty() {
            self.0 = HashMap::new();
        }
    }
}

/// The age of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct BucketAge {
    /// Time of the bucket's first use.
    pub(super) first_ms: u64,
    /// Set at the first use.
    pub(super) is_first: bool,
}

/// Buckets by the hash of their owner.
#[derive(Debug)]
pub(super) struct Buckets {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
    eviction: Eviction,
    overflow: Mutex<Overflow>,
}

impl Buckets {
    /// Empty maps with room for about `buckets_max`.
    pub(super) fn new(buckets_max: usize, eviction: Eviction) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: buckets_max.div_ceil(SHARDS),
            eviction,
            overflow: Mutex::default(),
        }
    }

    /// Takes the amount from the account's bucket, or gives the seconds until it is there. Each bucket always comes
    /// with the same rate.
    pub(super) fn take(&self, account: &Account, amount: Amount, now_ms: u64) -> Result<BucketAge, u64> {
        if account.rate.is_unlimited() {
            return Ok(BucketAge { first_ms: now_ms, is_first: true });
        }
        self.with_bucket(account, now_ms, |bucket, is_first| {
            bucket.take(amount, now_ms).map(|()| BucketAge { first_ms: bucket.first_ms, is_first })
        })
    }

    /// Returns whether the account's bucket holds `times` events, or gives the seconds until it does.
    pub(super) fn holds(&self, account: &Account, times: u32, now_ms: u64) -> Result<(), u64> {
        if account.rate.is_unlimited() {
            return Ok(());
        }
        let shard = self.shard(account.bucket.hash).lock();
        if let Some(bucket) = shard.buckets.get(&account.bucket.hash) {
            return bucket.holds(times, now_ms);
        }
        let has_room = shard.buckets.len() < self.shard_max;
        drop(shard);
        if has_room { Ok(()) } else { self.overflow.lock().bucket(account, now_ms).holds(times, now_ms) }
    }

    /// Takes `times` events from the account's bucket, whether they are there or not; the debt stays under a burst.
    pub(super) fn charge(&self, account: &Account, times: u32, now_ms: u64) {
        if !account.rate.is_unlimited() {
            self.with_bucket(account, now_ms, |bucket, _| bucket.charge(times, now_ms));
        }
    }

    /// Puts back events that [`Self::take`] took from the bucket of `hash` a moment ago.
    pub(super) fn put_back(&self, hash: u64, times: u32) {
        if let Some(bucket) = self.shard(hash).lock().buckets.get_mut(&hash) {
            bucket.put_back(times);
        }
    }

    /// Takes events that another instance accepted from the bucket of `hash`, as [`Self::charge`] does, and returns
    /// whether it took them. An owner that is unknown here gets a bucket while the shard is less than half full: an
    /// instance's word neither forgets a bucket nor spends the one of newcomers.
    pub(super) fn charge_by_peer(&self, hash: u64, rate: Rate, times: u32, now_ms: u64) -> bool {
        if rate.is_unlimited() {
            return true;
        }
        let mut shard = self.shard(hash).lock();
        let has_room = shard.buckets.len() < self.shard_max / HEARSAY_PART;
        let bucket = match shard.buckets.get_mut(&hash) {
            Some(bucket) => bucket,
            None if has_room => shard.buckets.entry(hash).or_insert_with(|| Bucket::full(rate, now_ms)),
            None => return false,
        };
        bucket.charge(times, now_ms);
        true
    }

    /// Number of whole events that the bucket of `hash` holds.
    pub(super) fn events(&self, hash: u64, rate: Rate, now_ms: u64) -> u32 {
        let shard = self.shard(hash).lock();
        shard.buckets.get(&hash).map_or(rate.burst, |bucket| bucket.events(now_ms))
    }

    /// Returns whether the owner of `hash` has a bucket, which is to say that it paid from one and is remembered.
    pub(super) fn remembers(&self, hash: u64) -> bool {
        self.shard(hash).lock().buckets.contains_key(&hash)
    }

    /// Forgets the bucket of `hash`.
    pub(super) fn forget(&self, hash: u64) {
        self.shard(hash).lock().buckets.remove(&hash);
    }

    /// Forgets the buckets that may be forgotten.
    pub(super) fn sweep(&self, now_ms: u64) {
        for shard in &self.shards {
            shard.lock().sweep(self.eviction, now_ms, false);
        }
        self.overflow.lock().sweep(now_ms);
    }

    /// Number of buckets that are held.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().buckets.len()).sum()
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The remainder is below SHARDS, so it fits and the shard is there.
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    /// Returns whether the shard holds the bucket of `hash` or has room for it.
    fn has_room(&self, shard: &mut Shard, hash: u64, now_ms: u64) -> bool {
        if shard.buckets.contains_key(&hash) || shard.buckets.len() < self.shard_max {
            return true;
        }
        shard.make_room(self.eviction, now_ms);
        shard.buckets.len() < self.shard_max
    }

    fn with_bucket<T>(&self, account: &Account, now_ms: u64, act: impl FnOnce(&mut Bucket, bool) -> T) -> T {
        let hash = account.bucket.hash;
        let mut shard = self.shard(hash).lock();
        if let Some(bucket) = shard.buckets.get_mut(&hash) {
            return act(bucket, false);
        }
        if self.has_room(&mut shard, hash, now_ms) {
            return act(shard.buckets.entry(hash).or_insert_with(|| Bucket::full(account.rate, now_ms)), true);
        }
        drop(shard);
        act(self.overflow.lock().bucket(account, now_ms), true)
    }
}

impl Shard {
    fn make_room(&mut self, eviction: Eviction, now_ms: u64) {
        if self.swept_ms.is_none_or(|swept_ms| now_ms.saturating_sub(swept_ms) >= SWEEP_PAUSE_MS) {
            self.swept_ms = Some(now_ms);
            self.sweep(eviction, now_ms, true);
        }
    }

    fn sweep(&mut self, eviction: Eviction, now_ms: u64, room_is_short: bool) {
        self.buckets.retain(|_, bucket| !eviction.forgets(bucket, now_ms, room_is_short));
        if self.buckets.capacity() > 4 * self.buckets.len() + 64 {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
    }
}

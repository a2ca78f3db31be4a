//! The accounts of the payers of live delivery: the work that one payer's subscriptions may cause, and the room that
//! they may take in the index, over all its connections.
//!
//! Source: docs/rules.md, "Live delivery". An account is found by the hash of its payer (`rate_limit::Payer`).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
};

use nostr_protocol::Rejection;
use parking_lot::Mutex;

use super::routes::{CONNECTION_FILTER_BYTES_MAX, CONNECTION_ROUTES_MAX, Weight};

/// Connections' worth of routes and of filters' bytes that all connections of one payer have together: enough for 400
/// clients that follow 500 authors each behind one address, and a bound on one attacker's part of the index.
const PAYER_CONNECTIONS_MAX: usize = 10;
/// Routes that each connection adds to this, so that small requests find room behind an address of many clients.
const ADDED_ROUTES_MAX: usize = 200;
/// Bytes of filters that each connection adds to this.
const ADDED_FILTER_BYTES_MAX: usize = 16 << 10;
/// Conditions that live delivery looks at in a second for one payer and one shard: about a tenth of a core. A thousand
/// events a second for ten ordinary filters each take a hundredth of it.
const CONDITIONS_PER_SEC_MAX: i64 = 20_000_000;
/// Conditions that live delivery looks at for one payer at once: about 10 ms of a core, by which one payer delays the
/// deliveries of its shard.
const CONDITIONS_AT_ONCE_MAX: i64 = 2_000_000;
/// Conditions that a payer owes at most while its modest subscriptions go on. Beyond it each subscription ends that an
/// event finds.
const DEBT_CONDITIONS_MAX: i64 = CONDITIONS_AT_ONCE_MAX / 4;
/// Conditions of one subscription at one event that are modest: some ten ordinary filters.
const MODEST_CONDITIONS_MAX: usize = 256;
/// Values of filters that a payer's requests open in a second in one shard: about a tenth of a core.
const OPENED_PER_SEC_MAX: i64 = 200_000;
/// Values of filters that a payer's requests open at once: forty clients log in with 25,000 values each.
const OPENED_AT_ONCE_MAX: i64 = 1_000_000;
/// Milliseconds by which a time is older than the last one if the clock was set back.
const SET_BACK_MS: u64 = 5_000;
/// Shortest time between two searches for accounts that may be forgotten.
const SWEEP_PAUSE_MS: u64 = 1_000;

/// The accounts of all payers.
pub(super) struct Payers {
    accounts: Mutex<Accounts>,
    shards: i64,
}

#[derive(Default)]
struct Accounts {
    by_payer: HashMap<u64, Arc<Account>>,
    swept_ms: u64,
}

/// One payer's account, which its connections share.
pub(super) struct Account {
    matched: Bucket,
    opened: Bucket,
    connections: AtomicUsize,
    routes: AtomicUsize,
    filter_bytes: AtomicUsize,
}

/// An amount of work that fills again with time.
struct Bucket {
    /// Work left; below 0 it is a debt, which is paid with time.
    level: AtomicI64,
    filled_ms: AtomicU64,
    per_ms: i64,
    at_once: i64,
}

/// The payer's conditions are used up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UsedUp;

impl Payers {
    /// No accounts. Each has the work of `shards` shards.
    pub(super) fn new(shards: usize) -> Self {
        Self { accounts: Mutex::default(), shards: i64::try_from(shards).unwrap_or(i64::MAX) }
    }

    /// The account of the payer with this hash. An account without connections is kept until it is full again, so that
    /// nobody gets more by connecting anew.
    pub(super) fn account(&self, payer: u64, now_ms: u64) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        if now_ms.abs_diff(accounts.swept_ms) >= SWEEP_PAUSE_MS {
            accounts.swept_ms = now_ms;
            accounts.by_payer.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_full(now_ms));
        }
        let new = || Arc::new(Account::full(self.shards, now_ms));
        Arc::clone(accounts.by_payer.entry(payer).or_insert_with(new))
    }
}

impl Account {
    fn full(shards: i64, now_ms: u64) -> Self {
        let bucket = |per_sec: i64, at_once| Bucket {
            level: AtomicI64::new(at_once),
            filled_ms: AtomicU64::new(now_ms),
            per_ms: per_sec.saturating_mul(shards) / 1_000,
            at_once,
        };
        Self {
            matched: bucket(CONDITIONS_PER_SEC_MAX, CONDITIONS_AT_ONCE_MAX),
            opened: bucket(OPENED_PER_SEC_MAX, OPENED_AT_ONCE_MAX),
            connections: AtomicUsize::new(0),
            routes: AtomicUsize::new(0),
            filter_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes conditions that delivery has looked at for a subscription, which has cost `of_event` at this event so far,
    /// with them. The account keeps what it owes for a subscription that ends.
    ///
    /// # Errors
    /// [`UsedUp`] where the subscription is to end: the account has nothing left and the subscription is not modest, or
    /// the account owes too much.
    pub(super) fn charge_matched(&self, conditions: usize, of_event: usize, now_ms: u64) -> Result<(), UsedUp> {
        self.matched.fill(now_ms);
        let conditions = i64::try_from(conditions).unwrap_or(i64::MAX);
        let left = self.matched.level.fetch_sub(conditions, Ordering::Relaxed).saturating_sub(conditions);
        let is_modest = of_event <= MODEST_CONDITIONS_MAX;
        if left >= 0 || (is_modest && left > -DEBT_CONDITIONS_MAX) { Ok(()) } else { Err(UsedUp) }
    }

    /// Returns whether the account owes so much that nothing is matched for its payer.
    pub(super) fn owes_too_much(&self, now_ms: u64) -> bool {
        if self.matched.level.load(Ordering::Relaxed) > -DEBT_CONDITIONS_MAX {
            return false;
        }
        self.matched.fill(now_ms);
        self.matched.level.load(Ordering::Relaxed) <= -DEBT_CONDITIONS_MAX
    }

    /// Takes the values of a subscription that is about to be opened.
    ///
    /// # Errors
    /// `rate-limited:` where the account holds fewer, or owes conditions for subscriptions that were open; then none
    /// are taken.
    pub(super) fn charge_opened(&self, values: usize, now_ms: u64) -> Result<(), Rejection> {
        self.matched.fill(now_ms);
        let owed = self.matched.level.load(Ordering::Relaxed).min(0).unsigned_abs();
        if owed > 0 {
            let secs = owed.div_ceil(self.matched.per_ms.unsigned_abs().max(1) * 1_000);
            return Err(Rejection::rate_limited(format!(
                "the subscriptions from this address cost too much; name fewer tag letters and values; \
                 retry in {secs} s"
            )));
        }
        self.opened.fill(now_ms);
        // A request that costs more than there ever is takes all there is.
        let values = i64::try_from(values).unwrap_or(i64::MAX).min(OPENED_AT_ONCE_MAX);
        let take = |level: i64| (level >= values).then(|| level - values);
        self.opened.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map(drop).map_err(|level| {
            let secs = (values - level).unsigned_abs().div_ceil(self.opened.per_ms.unsigned_abs().max(1) * 1_000);
            Rejection::rate_limited(format!(
                "the requests from this address name too many values at once; name fewer; retry in {secs} s"
            ))
        })
    }

    fn is_full(&self, now_ms: u64) -> bool {
        self.matched.is_full(now_ms) && self.opened.is_full(now_ms)
    }

    /// Counts a connection.
    pub(super) fn connect(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection less.
    pub(super) fn disconnect(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes room for a subscription.
    ///
    /// # Errors
    /// `error:` at the bound of all connections of the payer together.
    pub(super) fn reserve(&self, weight: Weight) -> Result<(), Rejection> {
        let connections = self.connections.load(Ordering::Relaxed);
        let routes_max = CONNECTION_ROUTES_MAX * PAYER_CONNECTIONS_MAX + ADDED_ROUTES_MAX * connections;
        let bytes_max = CONNECTION_FILTER_BYTES_MAX * PAYER_CONNECTIONS_MAX + ADDED_FILTER_BYTES_MAX * connections;
        let reason = if self.routes.fetch_add(weight.routes, Ordering::Relaxed) + weight.routes > routes_max {
            format!("name over {routes_max} values")
        } else if self.filter_bytes.load(Ordering::Relaxed) + weight.bytes > bytes_max {
            format!("take over {} MiB", bytes_max >> 20)
        } else {
            self.filter_bytes.fetch_add(weight.bytes, Ordering::Relaxed);
            return Ok(());
        };
        self.routes.fetch_sub(weight.routes, Ordering::Relaxed);
        Err(Rejection::error(format!(
            "the subscriptions of all connections from this address {reason}; CLOSE some first"
        )))
    }

    /// Gives the room of a subscription back.
    pub(super) fn give_back(&self, weight: Weight) {
        self.routes.fetch_sub(weight.routes, Ordering::Relaxed);
        self.filter_bytes.fetch_sub(weight.bytes, Ordering::Relaxed);
    }
}

impl Bucket {
    fn fill(&self, now_ms: u64) {
        let filled_ms = self.filled_ms.load(Ordering::Relaxed);
        let exchanged = || {
            let exchanged = self.filled_ms.compare_exchange(filled_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed);
            exchanged.is_ok()
        };
        // Shards look at the clock at different times, and a time that is a little older fills nothing. A clock that
        // was set back fills nothing either, and counts from its new time on.
        let is_set_back = filled_ms.saturating_sub(now_ms) >= SET_BACK_MS;
        if (now_ms > filled_ms || is_set_back) && exchanged() {
            let fill = |level: i64| Some(self.filled(level, filled_ms, now_ms));
            let _ = self.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
        }
    }

    fn filled(&self, level: i64, from_ms: u64, to_ms: u64) -> i64 {
        let elapsed_ms = i64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(i64::MAX);
        level.saturating_add(elapsed_ms.saturating_mul(self.per_ms)).min(self.at_once)
    }

    fn is_full(&self, now_ms: u64) -> bool {
        let (level, filled_ms) = (self.level.load(Ordering::Relaxed), self.filled_ms.load(Ordering::Relaxed));
        self.filled(level, filled_ms, now_ms) == self.at_once
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: usize = CONDITIONS_AT_ONCE_MAX as usize;
    const PER_MS: usize = CONDITIONS_PER_SEC_MAX as usize / 1_000;

    #[test]
    fn an_account_fills_with_time_and_keeps_its_debt() {
        let account = Account::full(1, 0);
        let (modest, debt) = (MODEST_CONDITIONS_MAX, DEBT_CONDITIONS_MAX as usize);
        let charge = |conditions, now_ms| account.charge_matched(conditions, conditions, now_ms);
        assert_eq!(charge(AT_ONCE, 0), Ok(()));
        assert_eq!(charge(modest + 1, 0), Err(UsedUp));
        assert_eq!(charge(modest, 0), Ok(()), "the modest ones go on");
        assert_eq!(account.charge_matched(1, modest + 1, 0), Err(UsedUp), "modest in all that it costs at the event");
        account.charge_opened(1, 0).expect_err("no further one is opened");
        assert_eq!(charge(PER_MS, 0), Err(UsedUp));
        account.charge_opened(1, 1).expect_err("a millisecond does not pay the debt");
        account.charge_opened(1, 2).expect("two do");
        assert_eq!(charge(AT_ONCE + debt, 1_000), Err(UsedUp), "never more than at once");
        assert!(account.owes_too_much(1_000));
        assert_eq!(charge(1, 1_000), Err(UsedUp), "nobody goes on when it owes too much");
        assert!(!account.owes_too_much(1_001) && charge(1, 5) == Ok(()), "time pays the debt");
        assert!(!account.is_full(1_100) && account.is_full(1_300));
    }

    #[test]
    fn requests_pay_for_the_values_that_they_open() {
        let account = Account::full(2, 0);
        let large = OPENED_AT_ONCE_MAX as usize;
        account.charge_opened(large - 10, 0).expect("it is full");
        account.charge_opened(10, 0).expect("there is enough");
        let refusal = account.charge_opened(400_001, 0).expect_err("it is empty").to_string();
        assert!(refusal.starts_with("rate-limited: ") && refusal.ends_with("retry in 2 s"), "{refusal}");
        account.charge_opened(400_000, 1_000).expect("a second has passed");
        account.charge_opened(usize::MAX, 10_000).expect("a request of any size is taken from a full account");
        account.charge_opened(1, 10_000).expect_err("and leaves nothing");
    }

    #[test]
    fn an_account_without_connections_is_kept_until_it_is_full() {
        let payers = Payers::new(1);
        let used = payers.account(1, 0);
        drop(payers.account(2, 0));
        used.charge_matched(AT_ONCE, AT_ONCE, SWEEP_PAUSE_MS).expect("it is full");
        drop(used);
        drop(payers.account(3, SWEEP_PAUSE_MS));
        let held = |payer| payers.accounts.lock().by_payer.contains_key(&payer);
        assert!(held(1) && !held(2) && held(3));
        drop(payers.account(3, 2 * SWEEP_PAUSE_MS));
        assert!(!held(1));
    }

    #[test]
    fn the_room_of_all_connections_of_a_payer_is_bounded() {
        let account = Account::full(1, 0);
        let one = Weight { routes: CONNECTION_ROUTES_MAX, bytes: 1 };
        for _ in 0..PAYER_CONNECTIONS_MAX {
            account.reserve(one).expect("there is room");
        }
        account.reserve(one).expect_err("the routes are used up");
        account.give_back(one);
        account.reserve(one).expect("room was given back");
        let large = Weight { routes: 0, bytes: CONNECTION_FILTER_BYTES_MAX * PAYER_CONNECTIONS_MAX };
        account.reserve(large).expect_err("the bytes are used up");
        account.connect();
        let small = Weight { routes: ADDED_ROUTES_MAX, bytes: 0 };
        account.reserve(small).expect("a further connection brings room for small requests");
        account.give_back(small);
        account.disconnect();
        account.reserve(small).expect_err("and takes it along");
    }
}

//! Management: the operator's configuration and standing orders in force, which change while the relay runs.
//!
//! Source: NIP-86; docs/rules.md, "Management". The standing orders are one record of the store, changed by
//! compare-and-set. Each instance holds them in memory, and looks at the record's version when another instance says
//! that it has changed the record, and each `POLL_MS`. A look that fails leaves the standing orders as they were last
//! read.

mod blocked;
mod order;
mod reload;
mod rpc;
mod standing;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use nostr_extensions::{CurrentPolicy, Moderation, Policy, policy::KeptFor};
use nostr_protocol::{Rejection, Rule};
use nostr_store::{RECORD_BYTES_MAX, RecordName, Store, StoreError};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::reload::{is_live, tell};
pub(crate) use self::rpc::{answer, is_order};
use self::{
    blocked::Blocked,
    standing::{Ordered, StandingOrders},
};
use crate::{config::Config, observe::telemetry::OwnerTags};

/// Milliseconds from one look at the record of a store that instances share to the next one.
const POLL_MS: u64 = 500;
/// Milliseconds that a look may take. One without an answer is given up, and its connection with it, and the next one
/// may take twice as long.
const LOOK_MS_MAX: u64 = 400;
/// Most times that the time for a look is doubled.
const LOOK_DOUBLED_MAX: u32 = 4;
/// Most times that an order is repeated because another instance carried out one in between.
const CHANGE_TRIES_MAX: usize = 16;

/// The policy that a relay with this configuration has over this store: the configuration's, with the standing orders
/// that the store holds. For the operator's commands, which decide once.
///
/// # Errors
/// In words for the operator, where the orders cannot be read.
pub async fn policy_over(store: &dyn Store, config: &Config) -> Result<Policy, String> {
    let found = store.record(RecordName::Management, 0).await.map_err(|error| unavailable(&error))?;
    let standing = found.map(|record| StandingOrders::read(&record.value)).transpose()?.unwrap_or_default();
    Ok(Policy { moderation: Arc::new(standing.moderation()), ..config.policy() })
}

/// Checks that a document holds standing orders which a relay of this release can read.
///
/// # Errors
/// In words for the operator.
pub fn check_orders(document: &[u8]) -> Result<(), String> {
    StandingOrders::read(document).map(|_| ())
}

/// See the module.
pub(crate) struct Management {
    store: Arc<dyn Store>,
    policy: CurrentPolicy,
    /// Names of subjects in the log.
    tags: Arc<OwnerTags>,
    known: Mutex<Known>,
    /// Held while an order is carried out, so that orders at one instance do not overtake each other. A look at the
    /// record does not wait for it.
    ordering: tokio::sync::Mutex<()>,
    shown: ArcSwap<Shown>,
    changes: watch::Sender<u64>,
    /// Set when another instance may have changed the record.
    pub(crate) told: Arc<Notify>,
}

struct Known {
    config: Config,
    /// Set once the record was read.
    is_read: bool,
    version: u64,
    standing: StandingOrders,
}

/// The state in force, beside the policy.
pub(crate) struct Shown {
    /// The configuration, with the statements of the standing orders in it.
    pub(crate) config: Config,
    /// The kinds of `[retention]` and their times.
    pub(crate) retention: Vec<KeptFor>,
    blocked: Blocked,
}

impl Shown {
    fn of(known: &Known, policy: &Policy) -> Self {
        let (mut config, standing) = (known.config.clone(), &known.standing);
        let information = &mut config.information;
        if let Some(name) = &standing.name {
            information.name.clone_from(name);
        }
        if let Some(description) = &standing.description {
            information.description.clone_from(description);
        }
        if standing.icon.is_some() {
            information.icon.clone_from(&standing.icon);
        }
        Self { config, retention: policy.retention_told(), blocked: standing.blocked() }
    }
}

impl Management {
    /// Reads the standing orders of `store` and puts them into force.
    ///
    /// # Errors
    /// In words for the operator, where the store of this process alone cannot be read. A shared store may answer
    /// later; until then nothing is admitted or served, since a key may be banned.
    pub(crate) async fn start(
        config: &Config,
        store: Arc<dyn Store>,
        policy: CurrentPolicy,
        tags: Arc<OwnerTags>,
    ) -> Result<Self, String> {
        let known = Known { config: config.clone(), is_read: false, version: 0, standing: StandingOrders::default() };
        let management = Self {
            shown: ArcSwap::from_pointee(Shown::of(&known, &policy.now())),
            known: Mutex::new(known),
            ordering: tokio::sync::Mutex::default(),
            store,
            policy,
            tags,
            changes: watch::Sender::new(0),
            told: Arc::default(),
        };
        match management.look().await {
            Err(error) if management.store.notifications().is_some() => {
                tracing::warn!("{error}; nothing is admitted or served until it can be read");
                management.put_into_force(&management.known.lock());
            }
            looked => looked?,
        }
        Ok(management)
    }

    /// The configuration in force, for all that shows it.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// The configuration in force, without the statements of the standing orders.
    pub(crate) fn configured(&self) -> Config {
        self.known.lock().config.clone()
    }

    /// A receiver that changes with each change of the policy or the blocked addresses.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether clients of this address are refused.
    pub(crate) fn blocks(&self, address: IpAddr) -> bool {
        self.shown.load().blocked.holds(address)
    }

    /// Refuses a blocked address.
    ///
    /// # Errors
    /// `restricted:`.
    pub(crate) fn require_open(&self, address: IpAddr) -> Result<(), Rejection> {
        if self.blocks(address) {
            let refusal = Rejection::restricted("this address is blocked at this relay");
            return Err(refusal.under(Rule("Management", 7)));
        }
        Ok(())
    }

    /// Follows the record of a store that instances share, until `stopping`.
    pub(crate) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let following = async {
            let (mut next, mut late) = (Instant::now() + Duration::from_millis(POLL_MS), 0);
            loop {
                let _ = timeout_at(next, self.told.notified()).await;
                let began = Instant::now();
                next = began + Duration::from_millis(POLL_MS);
                let limit = Duration::from_millis(LOOK_MS_MAX << late.min(LOOK_DOUBLED_MAX));
                match timeout(limit, self.look()).await {
                    Ok(Ok(())) => late = 0,
                    Ok(Err(error)) => tracing::debug!(%error, "the standing orders of management were not read"),
                    Err(_) => {
                        late += 1;
                        next = Instant::now();
                    }
                }
            }
        };
        stopping.run_until_cancelled(following).await;
    }

    /// Carries an order out on all instances. It is durable, and in force on this one, before the answer. A call that
    /// is dropped may leave the order in the store and not in force here.
    ///
    /// # Errors
    /// In words for the admin.
    async fn carry_out(&self, ordered: &Ordered) -> Result<(), String> {
        let _turn = self.ordering.lock().await;
        for _ in 0..CHANGE_TRIES_MAX {
            self.look().await?;
            let (version, mut standing) = {
                let known = self.known.lock();
                (known.version, known.standing.clone())
            };
            standing.carry_out(ordered)?;
            let value = serde_json::to_vec(&standing).map_err(|error| error.to_string())?;
            if value.len() > RECORD_BYTES_MAX {
                return Err("the lists and their reasons are as long as they may be; take entries off first".to_owned());
            }
            match self.store.put_record(RecordName::Management, version, value).await {
                Ok(true) => {
                    self.learn(Some((version + 1, standing)));
                    self.note(ordered);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    // The store may have written it, and lost the answer.
                    let _ = self.look().await;
                    return Err(unavailable(&error));
                }
            }
        }
        Err("error: other instances carry out orders at the same time; try again".to_owned())
    }

    /// Writes the log's line about an order.
    fn note(&self, ordered: &Ordered) {
        let (by, sort) = (self.tags.owner_tag(&ordered.by), ordered.order.sort());
        let subject = ordered.order.subject();
        let tag = self.tags.subject_tag(&subject);
        tracing::info!(method = ordered.method, %by, sort, subject = %tag, "an admin key gave an order");
        tracing::debug!(method = ordered.method, subject, "the subject of the order");
    }

    /// Reads the record if its version is another one.
    async fn look(&self) -> Result<(), String> {
        let version = self.known.lock().version;
        let found = self.store.record(RecordName::Management, version).await;
        let found = found.map_err(|error| unavailable(&error))?;
        self.learn(match found {
            Some(record) => Some((record.version, StandingOrders::read(&record.value)?)),
            None => None,
        });
        Ok(())
    }

    /// Takes in a record that was read or written; `None` for the one that is known. An older one than that is passed
    /// over, since calls of the store end in any order.
    fn learn(&self, found: Option<(u64, StandingOrders)>) {
        let mut known = self.known.lock();
        match found {
            Some((version, standing)) if version > known.version => {
                (known.version, known.standing) = (version, standing);
            }
            _ if known.is_read => return,
            _ => {}
        }
        known.is_read = true;
        self.put_into_force(&known);
    }

    /// Puts into force all that is known. The caller holds the lock, so that no older state follows a newer one.
    fn put_into_force(&self, known: &Known) {
        let mut policy = known.config.policy();
        policy.moderation = Arc::new(Moderation { is_unknown: !known.is_read, ..known.standing.moderation() });
        let shown = Shown::of(known, &policy);
        self.policy.replace(policy);
        self.shown.store(Arc::new(shown));
        self.changes.send_modify(|changes| *changes += 1);
    }
}

fn unavailable(error: &StoreError) -> String {
    format!("error: the record of management cannot be read or written: {error}")
}

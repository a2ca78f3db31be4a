//! Management: the operator's configuration and standing orders in force, which change while the relay runs.
//!
//! Source: NIP-86; docs/rules.md, "Management". The standing orders are one record of the store, changed by
//! compare-and-set. Each instance holds them in memory, and looks at the record's version when another instance says
//! that it has changed the record, and each [`POLL_MS`]. A look that fails leaves the standing orders as they were last
//! read.

mod order;
mod reload;
mod rpc;
mod standing;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use nostr_extensions::{CurrentPolicy, Moderation};
use nostr_store::{RECORD_BYTES_MAX, RecordName, Store, StoreError};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::reload::tell;
pub(crate) use self::rpc::{answer, is_order};
use self::standing::{Blocked, Ordered, StandingOrders};
use crate::config::Config;

/// Milliseconds between two looks at the record of a store that instances share.
const POLL_MS: u64 = 500;
/// Most times that an order is repeated because another instance carried out one in between.
const CHANGE_TRIES_MAX: usize = 16;

/// See the module.
pub(crate) struct Management {
    store: Arc<dyn Store>,
    policy: CurrentPolicy,
    /// Held while the record is read or written, so that no older value follows a newer one.
    known: Mutex<Known>,
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
    blocked: Blocked,
}

impl Shown {
    fn of(known: &Known) -> Self {
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
        Self { config, blocked: standing.blocked() }
    }
}

impl Management {
    /// Reads the standing orders of `store` and puts them into force.
    ///
    /// # Errors
    /// In words for the operator, where the store of this process alone cannot be read. A shared store may answer
    /// later; until then nothing is admitted or served, since a key may be banned.
    pub(crate) async fn start(config: &Config, store: Arc<dyn Store>, policy: CurrentPolicy) -> Result<Self, String> {
        let known = Known { config: config.clone(), is_read: false, version: 0, standing: StandingOrders::default() };
        let management = Self {
            shown: ArcSwap::from_pointee(Shown::of(&known)),
            known: Mutex::new(known),
            store,
            policy,
            changes: watch::Sender::new(0),
            told: Arc::default(),
        };
        let mut known = management.known.lock().await;
        match management.look(&mut known).await {
            Err(error) if management.store.notifications().is_some() => {
                tracing::warn!("{error}; nothing is admitted or served until it can be read");
                management.put_into_force(&known);
            }
            looked => looked?,
        }
        drop(known);
        Ok(management)
    }

    /// The configuration in force, for all that shows it.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// A receiver that changes with each change of the policy or the blocked addresses.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether clients of this address are refused.
    pub(crate) fn blocks(&self, address: IpAddr) -> bool {
        self.shown.load().blocked.holds(address)
    }

    /// Follows the record of a store that instances share, until `stopping`.
    pub(crate) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let following = async {
            loop {
                let _ = timeout(Duration::from_millis(POLL_MS), self.told.notified()).await;
                let mut known = self.known.lock().await;
                if let Err(error) = self.look(&mut known).await {
                    tracing::debug!(%error, "the standing orders of management were not read");
                }
            }
        };
        stopping.run_until_cancelled(following).await;
    }

    /// Carries an order out on all instances. It is durable, and in force on this one, before the answer.
    ///
    /// # Errors
    /// In words for the admin.
    async fn carry_out(&self, ordered: &Ordered) -> Result<(), String> {
        let mut known = self.known.lock().await;
        for _ in 0..CHANGE_TRIES_MAX {
            self.look(&mut known).await?;
            let mut standing = known.standing.clone();
            standing.carry_out(ordered)?;
            let value = serde_json::to_vec(&standing).map_err(|error| error.to_string())?;
            if value.len() > RECORD_BYTES_MAX {
                return Err("the lists and their reasons are as long as they may be; take entries off first".to_owned());
            }
            let put = self.store.put_record(RecordName::Management, known.version, value).await;
            if put.map_err(|error| unavailable(&error))? {
                (known.version, known.standing) = (known.version + 1, standing);
                self.put_into_force(&known);
                tracing::info!(method = ordered.method, "an admin key gave an order");
                return Ok(());
            }
        }
        Err("error: other instances carry out orders at the same time; try again".to_owned())
    }

    /// Reads the record if its version is another one.
    async fn look(&self, known: &mut Known) -> Result<(), String> {
        let found = self.store.record(RecordName::Management, known.version).await;
        if let Some(record) = found.map_err(|error| unavailable(&error))? {
            known.standing = StandingOrders::read(&record.value)?;
            (known.version, known.is_read) = (record.version, true);
            self.put_into_force(known);
        } else if !known.is_read {
            known.is_read = true;
            self.put_into_force(known);
        }
        Ok(())
    }

    fn put_into_force(&self, known: &Known) {
        let mut policy = known.config.policy();
        policy.moderation = Arc::new(Moderation { is_unknown: !known.is_read, ..known.standing.moderation() });
        self.policy.replace(policy);
        self.shown.store(Arc::new(Shown::of(known)));
        self.changes.send_modify(|changes| *changes += 1);
    }
}

fn unavailable(error: &StoreError) -> String {
    format!("error: the record of management cannot be read or written: {error}")
}

//! The account of one request: what it has cost, and whether it may go on.
//!
//! Source: docs/rules.md, "Cost of reads".

use nostr_protocol::{PublicKey, Rejection};
use nostr_store::Cost;

use super::ReadError;
use crate::{
    app::App,
    error::read_failed,
    rate_limit::{AddressBlock, ReadAccount},
    session::Caller,
    shares::Share,
    system::random,
    turns::{PayerHash, Turn},
};

/// The bound on a request's cost is lowered by less than this part of it, by chance. A request whose cost depended on
/// events that its reader may not see would tell of them by where it ends.
const BLUR_PART: u64 = 16;

/// See the module.
pub(crate) struct Meter<'a> {
    app: &'a App,
    share: &'a Share,
    account: ReadAccount,
    payer: PayerHash,
    spent: Cost,
    /// The bound on the request's units, drawn when the request comes near it.
    bound: Option<u64>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(caller: &'a Caller) -> Self {
        let app = &*caller.app;
        let block = AddressBlock::of(caller.client.address);
        let account = app.read_budgets.account(caller.payer(), caller.reader.primary(), block);
        Self { app, share: &caller.share, account, payer: caller.payer_hash(), spent: Cost::default(), bound: None }
    }

    /// The budgets that pay, for work that goes on without the request.
    pub(crate) const fn account(&self) -> &ReadAccount {
        &self.account
    }

    /// Returns whether the next piece of work may be done.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`] at the bound of one request, [`ReadError::UsedUp`] at the budget of its party.
    pub(crate) fn may_go_on(&mut self) -> Result<(), ReadError> {
        let max = self.app.config.limitation.max_query_cost;
        if self.spent.units >= max - max / BLUR_PART && self.spent.units >= self.bound(max) {
            return Err(ReadError::TooLarge);
        }
        let (budgets, now_ms) = (&self.app.read_budgets, self.app.clock.now_ms());
        let left = match self.spent.units {
            0 => budgets.may_begin(&self.account, now_ms),
            _ => budgets.may_go_on(&self.account, self.spent, now_ms),
        };
        left.map_err(ReadError::UsedUp)
    }

    /// Units that the request has cost so far.
    pub(super) const fn spent_units(&self) -> u64 {
        self.spent.units
    }

    fn bound(&mut self, max: u64) -> u64 {
        *self.bound.get_or_insert_with(|| max - random::below(max / BLUR_PART))
    }

    /// Takes the cost of work that was done.
    pub(crate) fn charge(&mut self, cost: Cost) {
        self.spent += cost;
        self.app.read_budgets.charge(&self.account, cost, self.app.clock.now_ms());
        self.app.metrics.read_cost(cost.units);
    }

    /// Returns whether `owner` has acted in a group of which `key` is a member, at the price of the groups of `key`.
    ///
    /// # Errors
    /// `rate-limited:` where the party has read too much, and `error:` where the store does not answer.
    pub(crate) async fn finds_common_group(&mut self, owner: &PublicKey, key: &PublicKey) -> Result<bool, Rejection> {
        self.may_go_on()?;
        let turn = self.turn_at_store().await;
        let found = self.app.store.shares_group(owner, key).await;
        drop(turn);
        let (is_shared, cost) = found.map_err(read_failed)?;
        self.charge(cost);
        Ok(is_shared)
    }

    /// Waits for the party's share of the processor, and at a database that others use too for its turn. Over the
    /// embedded store the work is the task's own. This ends the task's poll, so that each poll does one piece of work.
    pub(crate) async fn turn_at_store(&self) -> Option<Turn> {
        let is_shared = self.app.delivery.is_followed();
        if !is_shared {
            tokio::task::yield_now().await;
        }
        // The page follows in the same poll, so that no other task of the payer passes before it is paid for.
        self.share.pause().await;
        if is_shared { Some(self.app.read_turns.take(self.payer).await) } else { None }
    }
}

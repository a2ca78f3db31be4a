//! Loading the facts that a batch is decided by, under the lock of the log and in one journey to the database.

use std::sync::atomic::{AtomicU64, Ordering};

use nostr_extensions::RouteHasher;

use super::{
    facts::{FACTS, keys},
    fail::Fail,
    history::History,
    pipeline::{Pipeline, Transaction, parameters},
    rows::{cursor, group_id},
};
use crate::{
    Cursor,
    decide::{
        facts::{Facts, Wanted},
        hiding::Hidden,
    },
};

/// Takes the lock of the log and reads its head. The lock ends with the transaction, so cursors become visible in
/// order.
pub(super) const LOCK: &str = "select head from rnostr.log for update";

/// Groups of keys that leave all their groups. They are read before the facts, which they add to.
const GROUPS_OF: &str = "select distinct group_id from rnostr.members where key = any($1::bytea[])";

/// Takes the log's lock, checks that the log still has the known `history`, loads the facts, and gives them with the
/// log's head. Events that `hidden` hides are no targets. `loaded` counts the bytes of the facts.
pub(super) async fn load(
    transaction: &Transaction<'_>,
    mut wanted: Wanted,
    hidden: &Hidden,
    route_hasher: &RouteHasher,
    loaded: &AtomicU64,
    history: &History,
) -> Result<(Facts, Cursor), Fail> {
    if !wanted.leaving.is_empty() {
        add_groups_left(transaction, &mut wanted).await?;
    }
    let mut pipeline = Pipeline::default();
    pipeline.add(LOCK, Vec::new());
    let fence = history.fence(&mut pipeline);
    let mut asked = Vec::new();
    for fact in &FACTS {
        if let Some(parameters) = (fact.parameters)(&wanted, route_hasher) {
            pipeline.add(fact.statement, parameters);
            asked.push(fact);
        }
    }
    let answers = pipeline.run(transaction).await?;
    transaction.note_lock();
    let [lock, fenced, answers @ ..] = &answers[..] else { return Err(Fail::Corrupt("the log has no head")) };
    fence.check(history, fenced)?;
    let head = cursor(lock.first().ok_or(Fail::Corrupt("the log has no head"))?, "head")?;
    // A key without a row is in no group.
    let memberships = wanted.joining.keys().map(|key| (*key, 0)).collect();
    let mut facts = Facts { memberships, ..Facts::default() };
    for (fact, rows) in asked.into_iter().zip(answers) {
        for row in rows {
            loaded.fetch_add(row.raw_size_bytes() as u64, Ordering::Relaxed);
            (fact.read)(row, &mut facts)?;
        }
    }
    facts.targets.retain(|_, target| target.stays || !hidden.hides(target.event.view()));
    Ok((facts, head))
}

/// Adds the groups that keys leave to the groups that are wanted whole.
async fn add_groups_left(transaction: &Transaction<'_>, wanted: &mut Wanted) -> Result<(), Fail> {
    let mut pipeline = Pipeline::default();
    pipeline.add(LOCK, Vec::new());
    pipeline.add(GROUPS_OF, parameters![keys(&wanted.leaving)]);
    for row in pipeline.run(transaction).await?.iter().skip(1).flatten() {
        let group = group_id(row, "group_id")?;
        wanted.groups.insert(group.clone());
        wanted.whole.insert(group);
    }
    Ok(())
}

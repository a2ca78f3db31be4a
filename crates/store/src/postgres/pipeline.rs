//! Several statements of one transaction, sent without waiting for each other's answers.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    time::Duration,
};

use deadpool_postgres::Client;
use futures_util::future::{join, join_all, try_join};
use tokio_postgres::{Row, types::ToSql};

use super::fail::Fail;

pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// Longest wait for the answer to BEGIN, or to the preparation of a statement, neither of which waits for another
/// transaction. A connection that takes longer has fallen silent.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(3);

/// Statements in the order of their execution.
#[derive(Default)]
pub(super) struct Pipeline {
    statements: Vec<(&'static str, Vec<Parameter>)>,
}

/// A list of parameters.
macro_rules! parameters {
    ($($parameter:expr),* $(,)?) => { vec![$(Box::new($parameter) as crate::postgres::pipeline::Parameter),*] };
}
pub(super) use parameters;

impl Pipeline {
    /// Adds a statement.
    pub(super) fn add(&mut self, statement: &'static str, parameters: Vec<Parameter>) {
        self.statements.push((statement, parameters));
    }

    /// Executes all statements and gives the rows of each, in order. An error ends the transaction.
    pub(super) async fn run(self, transaction: &Transaction<'_>) -> Result<Vec<Vec<Row>>, Fail> {
        self.run_within(transaction, false).await
    }

    /// Executes all statements like [`Pipeline::run`], then commits.
    pub(super) async fn commit(self, transaction: &Transaction<'_>) -> Result<Vec<Vec<Row>>, Fail> {
        self.run_within(transaction, true).await
    }

    async fn run_within(self, transaction: &Transaction<'_>, commits: bool) -> Result<Vec<Vec<Row>>, Fail> {
        let client = transaction.client;
        // Only the first use of a statement on a connection costs a journey.
        let mut prepared = Vec::with_capacity(self.statements.len());
        for (statement, _) in &self.statements {
            prepared.push(first_answer(client.prepare_cached(statement)).await?);
        }
        let borrowed: Vec<Vec<&(dyn ToSql + Sync)>> = self
            .statements
            .iter()
            .map(|(_, parameters)| parameters.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect())
            .collect();
        // The first poll of each future sends its statement, and the futures are polled in order.
        let begin = transaction.begin();
        let sent = prepared.iter().zip(&borrowed).map(|(statement, it)| client.query(statement, it));
        let commit = async {
            match commits {
                // COMMIT of a transaction that has failed rolls it back and is no error.
                true => client.batch_execute("commit").await,
                false => Ok(()),
            }
        };
        let rest = async { Ok(join(join_all(sent), commit).await) };
        let ((), (answered, committed)) = try_join(begin, rest).await?;
        let mut answers = Vec::with_capacity(prepared.len());
        // The first failure is the cause. Later ones only say that the transaction has failed.
        for answer in answered {
            answers.push(answer?);
        }
        committed?;
        if commits {
            transaction.state.store(ENDED, Ordering::Release);
        }
        Ok(answers)
    }
}

/// An answer that comes at once on a connection that is alive.
async fn first_answer<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fail> {
    match tokio::time::timeout(FIRST_ANSWER_MAX, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Fail::Silent),
    }
}

const NOT_BEGUN: u8 = 0;
const BEGUN: u8 = 1;
const ENDED: u8 = 2;

/// A transaction that begins with the first statements of a pipeline and commits with the last. So neither begin nor
/// commit costs a journey, and the log's lock is held for one journey less.
pub(super) struct Transaction<'a> {
    client: &'a Client,
    state: AtomicU8,
    /// Longest time that the server takes for one statement.
    limit: Duration,
    has_lock: AtomicBool,
}

impl<'a> Transaction<'a> {
    /// A transaction of which no statement takes longer than `limit`, and none waits for a lock for longer than half of
    /// that. So a statement that is ended for its time had its locks.
    pub(super) const fn new(client: &'a Client, limit: Duration) -> Self {
        Self { client, state: AtomicU8::new(NOT_BEGUN), limit, has_lock: AtomicBool::new(false) }
    }

    /// Notes that the transaction has the lock of the log.
    pub(super) fn note_lock(&self) {
        self.has_lock.store(true, Ordering::Release);
    }

    pub(super) fn has_lock(&self) -> bool {
        self.has_lock.load(Ordering::Acquire)
    }

    async fn begin(&self) -> Result<(), Fail> {
        if self.state.swap(BEGUN, Ordering::AcqRel) != NOT_BEGUN {
            return Ok(());
        }
        let ms = self.limit.as_millis();
        let begin = format!("begin; set local lock_timeout = {}; set local statement_timeout = {ms}", (ms / 2).max(1));
        first_answer(self.client.batch_execute(&begin)).await
    }

    /// Rolls back unless committed. Afterwards the connection may be used again.
    pub(super) async fn end(self) -> Result<(), Fail> {
        match self.state.into_inner() {
            BEGUN => Ok(self.client.batch_execute("rollback").await?),
            _ => Ok(()),
        }
    }
}

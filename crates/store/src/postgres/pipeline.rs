//! Several statements of one transaction, sent without waiting for each other.

use std::sync::atomic::{AtomicU8, Ordering};

use deadpool_postgres::Client;
use futures_util::future::{join_all, join3};
use tokio_postgres::{Row, types::ToSql};

use super::fail::Fail;

pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// Statements in the order in which they are carried out.
#[derive(Default)]
pub(super) struct Pipeline {
    statements: Vec<(&'static str, Vec<Parameter>)>,
}

/// A list of parameters.
macro_rules! parameters {
    ($($parameter:expr),* $(,)?) => { vec![$(Box::new($parameter) as Box<dyn tokio_postgres::types::ToSql + Sync + Send>),*] };
}
pub(super) use parameters;

impl Pipeline {
    /// Adds a statement.
    pub(super) fn add(&mut self, statement: &'static str, parameters: Vec<Parameter>) {
        self.statements.push((statement, parameters));
    }

    /// Carries all out, and gives the rows of each, in the order of the statements. On an error the transaction is lost.
    pub(super) async fn run(self, transaction: &Transaction<'_>) -> Result<Vec<Vec<Row>>, Fail> {
        self.run_within(transaction, false).await
    }

    /// The same, and then commits.
    pub(super) async fn commit(self, transaction: &Transaction<'_>) -> Result<Vec<Vec<Row>>, Fail> {
        self.run_within(transaction, true).await
    }

    async fn run_within(self, transaction: &Transaction<'_>, commits: bool) -> Result<Vec<Vec<Row>>, Fail> {
        let client = transaction.client;
        // A connection knows its statements after the first time: only then does each of them cost a journey.
        let mut prepared = Vec::with_capacity(self.statements.len());
        for (statement, _) in &self.statements {
            prepared.push(client.prepare_cached(statement).await?);
        }
        let borrowed: Vec<Vec<&(dyn ToSql + Sync)>> = self
            .statements
            .iter()
            .map(|(_, parameters)| parameters.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect())
            .collect();
        // Each is sent when its future is first asked, which happens in their order.
        let begin = transaction.begin();
        let sent = prepared.iter().zip(&borrowed).map(|(statement, it)| client.query(statement, it));
        let commit = async {
            match commits {
                // Of a transaction that is lost it is the end, and no error.
                true => client.batch_execute("commit").await,
                false => Ok(()),
            }
        };
        let (begun, answered, committed) = join3(begin, join_all(sent), commit).await;
        begun?;
        let mut answers = Vec::with_capacity(prepared.len());
        // The first failure is the cause; those behind it only say that the transaction is lost.
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

const NOT_BEGUN: u8 = 0;
const BEGUN: u8 = 1;
const ENDED: u8 = 2;

/// A transaction that begins with the first statements of a pipeline and ends with the last, so that neither costs a
/// journey, and the log's lock is held for one less.
pub(super) struct Transaction<'a> {
    client: &'a Client,
    state: AtomicU8,
}

impl<'a> Transaction<'a> {
    pub(super) const fn new(client: &'a Client) -> Self {
        Self { client, state: AtomicU8::new(NOT_BEGUN) }
    }

    async fn begin(&self) -> Result<(), tokio_postgres::Error> {
        match self.state.swap(BEGUN, Ordering::AcqRel) {
            NOT_BEGUN => self.client.batch_execute("begin").await,
            _ => Ok(()),
        }
    }

    /// Takes back what was not committed; the connection may be used again when it is done.
    pub(super) async fn end(self) -> Result<(), Fail> {
        match self.state.into_inner() {
            BEGUN => Ok(self.client.batch_execute("rollback").await?),
            _ => Ok(()),
        }
    }
}

//! Several statements of one transaction, sent without waiting for each other.

use deadpool_postgres::Transaction;
use futures_util::future::join_all;
use tokio_postgres::{Row, types::ToSql};

use super::fail::Fail;

type Parameter = Box<dyn ToSql + Sync + Send>;

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
    /// Adds a statement; its place among the answers.
    pub(super) fn add(&mut self, statement: &'static str, parameters: Vec<Parameter>) -> usize {
        self.statements.push((statement, parameters));
        self.statements.len() - 1
    }

    /// Carries all out; the rows of each. On an error the transaction is lost.
    pub(super) async fn run(self, transaction: &Transaction<'_>) -> Result<Vec<Vec<Row>>, Fail> {
        // A connection knows its statements after the first time: only then does each of them cost a journey.
        let mut prepared = Vec::with_capacity(self.statements.len());
        for (statement, _) in &self.statements {
            prepared.push(transaction.prepare_cached(statement).await?);
        }
        let borrowed: Vec<Vec<&(dyn ToSql + Sync)>> = self
            .statements
            .iter()
            .map(|(_, parameters)| parameters.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect())
            .collect();
        // Each is sent when its future is first asked, which happens in their order.
        let sent = prepared.iter().zip(&borrowed).map(|(statement, it)| transaction.query(statement, it));
        let mut answers = Vec::with_capacity(prepared.len());
        // The first failure is the cause; those behind it only say that the transaction is lost.
        for answer in join_all(sent).await {
            answers.push(answer?);
        }
        Ok(answers)
    }
}

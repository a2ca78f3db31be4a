//! The calls of google.firestore.v1 that this store makes. Each has a deadline, and their number at one time is
//! bounded.

use std::{collections::HashMap, future::Future, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcloud_sdk::{
    google::firestore::v1::{
        BatchGetDocumentsRequest, BatchWriteRequest, CommitRequest, Document, DocumentMask, RollbackRequest,
        TransactionOptions, Write, batch_get_documents_request, batch_get_documents_response::Result as Looked,
        transaction_options,
    },
    prost_types::Timestamp,
};
use tokio::sync::{Semaphore, watch};
use tonic::Request;

use crate::firestore::wire::{
    clock::{Micros, micros},
    fail::Fail,
    line::{Api, Line},
    reads::Reads,
};

/// Longest wait for the answer of one call, in seconds.
pub(crate) const CALL_SECS_MAX: u64 = 5;
/// Most calls under way at one time; the service takes 100 on a connection.
const CALLS_MAX: usize = 64;
/// Most documents that one call asks for by name.
const GET_DOCUMENTS_MAX: usize = 500;
/// Most such calls of one read at one time.
const GETS_MAX: usize = 4;
/// Longest time, in milliseconds, for which a commit of the emulator may have its time and stay invisible to reads with
/// a later time. Measured: 750 microseconds, once in some hundred reads beside four writers. The service shows no such
/// delay.
const EMULATOR_SETTLING_MS: u64 = 25;
/// Most bytes of one message from the service; a document has at most 1 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The client of one database.
pub(crate) struct Client {
    pub(super) line: Line,
    pub(super) database: String,
    pub(super) root: String,
    /// Documents that were read, and the ceiling of clients' reads.
    pub(crate) reads: Reads,
    calls: Semaphore,
    /// Longest time, in microseconds, for which a commit may stay invisible.
    settling: Micros,
}

/// Documents by name, and the time of the read.
#[derive(Debug, Default)]
pub(crate) struct GetAnswer {
    pub(crate) documents: HashMap<String, Document>,
    /// Every commit up to this time is in the answer.
    pub(crate) read_at: Micros,
}

impl GetAnswer {
    pub(crate) fn get(&self, name: &str) -> Option<&Document> {
        self.documents.get(name)
    }
}

/// A transaction's id. Its commit fails if a document that it read has changed.
#[derive(Clone, Debug)]
pub(crate) struct Transaction(Vec<u8>);

impl Client {
    /// The client of the service, or of an emulator, over connections that `connect` makes.
    pub(crate) fn new(
        connect: impl Fn() -> Api + Send + Sync + 'static,
        database: String,
        is_emulator: bool,
        reads: Reads,
    ) -> Self {
        let root = format!("{database}/documents");
        let line = Line::new(move || connect().max_decoding_message_size(MESSAGE_BYTES_MAX));
        let settling = if is_emulator { EMULATOR_SETTLING_MS * 1_000 } else { 0 };
        Self { line, database, root, reads, calls: Semaphore::new(CALLS_MAX), settling }
    }

    /// Waits until the next read has a later time than every commit that was acknowledged before this call.
    pub(crate) async fn settle(&self) {
        if self.settling > 0 {
            tokio::time::sleep(Duration::from_micros(self.settling)).await;
        }
    }

    /// The time up to which a read at these times surely saw every commit.
    pub(super) fn seen(&self, times: Option<Micros>) -> Micros {
        times.unwrap_or_default().saturating_sub(self.settling)
    }

    /// Changes when the connection was replaced; a stream of before is to be opened anew.
    pub(crate) fn replaced(&self) -> watch::Receiver<u64> {
        self.line.replaced()
    }

    /// The beginning of all documents' names.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn request<M>(message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(CALL_SECS_MAX));
        request
    }

    /// Waits for a place among the calls, and then at most [`CALL_SECS_MAX`] for the answer.
    pub(super) async fn in_time<T>(&self, what: &str, call: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
        let bounded = async {
            let _place = self.calls.acquire().await.map_err(|_| Fail::timed_out(what))?;
            let under_way = self.line.call();
            let answer = tokio::time::timeout(Duration::from_secs(CALL_SECS_MAX), call).await;
            let answer = answer.unwrap_or_else(|_| Err(Fail::timed_out(what)));
            match &answer {
                Err(Fail::Late(_)) => drop(under_way),
                Err(Fail::Unavailable(_)) => under_way.failed(),
                Ok(_) | Err(_) => under_way.answered(),
            }
            answer
        };
        let answer = tokio::time::timeout(Duration::from_secs(2 * CALL_SECS_MAX), bounded).await;
        answer.unwrap_or_else(|_| Err(Fail::timed_out(what)))
    }

    /// Documents by name. Missing ones are left out. `fields` selects fields; `None` stands for all.
    pub(crate) async fn get(&self, names: Vec<String>, fields: Option<&[&str]>) -> Result<GetAnswer, Fail> {
        let parts: Vec<Vec<String>> = names.chunks(GET_DOCUMENTS_MAX).map(<[String]>::to_vec).collect();
        let gets = parts.into_iter().map(|part| async move { Ok(self.get_some(part, fields, None).await?.0) });
        let got: Vec<GetAnswer> = stream::iter(gets).buffered(GETS_MAX).try_collect().await?;
        let read_at = got.iter().map(|got| got.read_at).min().unwrap_or_default();
        Ok(GetAnswer { documents: got.into_iter().flat_map(|got| got.documents).collect(), read_at })
    }

    /// Documents by name, read in a new transaction.
    pub(crate) async fn get_guarded(
        &self,
        names: Vec<String>,
        fields: &[&str],
    ) -> Result<(GetAnswer, Transaction), Fail> {
        use batch_get_documents_request::ConsistencySelector;
        use transaction_options::{ConcurrencyMode, Mode, ReadWrite};
        // Optimistic reads hold off no writer; the commit finds changes.
        let mode = ReadWrite { concurrency_mode: ConcurrencyMode::Optimistic.into(), ..ReadWrite::default() };
        let options = TransactionOptions { mode: Some(Mode::ReadWrite(mode)) };
        let mut all = GetAnswer::default();
        let mut transaction: Option<Transaction> = None;
        for part in names.chunks(GET_DOCUMENTS_MAX) {
            let within = match &transaction {
                Some(Transaction(id)) => ConsistencySelector::Transaction(id.clone()),
                None => ConsistencySelector::NewTransaction(options.clone()),
            };
            let (got, begun) = self.get_some(part.to_vec(), Some(fields), Some(within)).await?;
            all.documents.extend(got.documents);
            all.read_at = if transaction.is_none() { got.read_at } else { all.read_at.min(got.read_at) };
            transaction = transaction.or(begun);
        }
        let transaction = transaction.ok_or(Fail::Damaged("a transaction without an id"))?;
        Ok((all, transaction))
    }

    async fn get_some(
        &self,
        documents: Vec<String>,
        fields: Option<&[&str]>,
        within: Option<batch_get_documents_request::ConsistencySelector>,
    ) -> Result<(GetAnswer, Option<Transaction>), Fail> {
        self.reads.count(documents.len() as u64);
        let mask =
            fields.map(|fields| DocumentMask { field_paths: fields.iter().map(|it| (*it).to_owned()).collect() });
        let message = BatchGetDocumentsRequest {
            database: self.database.clone(),
            documents,
            mask,
            consistency_selector: within,
            request_options: None,
        };
        self.in_time("get", async {
            let failed = |status| Fail::of("get", &status);
            let mut answers =
                self.line.api().batch_get_documents(Self::request(message)).await.map_err(failed)?.into_inner();
            let mut got = GetAnswer::default();
            let mut transaction = None;
            let mut read_at = None;
            while let Some(answer) = answers.message().await.map_err(failed)? {
                if !answer.transaction.is_empty() {
                    transaction = Some(Transaction(answer.transaction));
                }
                read_at = earlier(read_at, answer.read_time);
                if let Some(Looked::Found(document)) = answer.result {
                    got.documents.insert(document.name.clone(), document);
                }
            }
            got.read_at = self.seen(read_at);
            Ok((got, transaction))
        })
        .await
    }

    /// Writes everything or nothing, and gives the commit time.
    pub(crate) async fn commit(&self, writes: Vec<Write>, transaction: Option<Transaction>) -> Result<Micros, Fail> {
        let message = CommitRequest {
            database: self.database.clone(),
            writes,
            transaction: transaction.map(|Transaction(id)| id).unwrap_or_default(),
            request_options: None,
        };
        self.in_time("commit", async {
            let answer = self.line.api().commit(Self::request(message)).await;
            let committed = answer.map_err(|status| Fail::of_commit(&status))?.into_inner();
            committed.commit_time.map(micros).ok_or(Fail::Damaged("a commit without a time"))
        })
        .await
    }

    /// Writes each document by itself, and gives the number of writes that succeeded.
    pub(crate) async fn write_each(&self, writes: Vec<Write>) -> Result<usize, Fail> {
        let message = BatchWriteRequest {
            database: self.database.clone(),
            writes,
            labels: HashMap::new(),
            request_options: None,
        };
        self.in_time("write", async {
            let answer = self.line.api().batch_write(Self::request(message)).await;
            let answer = answer.map_err(|status| Fail::of("write", &status))?.into_inner();
            Ok(answer.status.iter().filter(|status| status.code == 0).count())
        })
        .await
    }

    /// Ends a transaction without a commit, because an open one may hold off others until the service forgets it.
    pub(crate) async fn rollback(&self, Transaction(transaction): Transaction) {
        let message = RollbackRequest { database: self.database.clone(), transaction, request_options: None };
        let ended = self.in_time("rollback", async {
            let answer = self.line.api().rollback(Self::request(message)).await;
            answer.map_err(|status| Fail::of("rollback", &status)).map(drop)
        });
        if let Err(fail) = ended.await {
            tracing::debug!("a transaction of Firestore ends by itself: {fail:?}");
        }
    }
}

/// The earlier of two times: a stream of answers may have been read at several times, and all of it holds at the first.
pub(super) fn earlier(known: Option<Micros>, time: Option<Timestamp>) -> Option<Micros> {
    match (known, time.map(micros)) {
        (Some(known), Some(time)) => Some(known.min(time)),
        (known, time) => known.or(time),
    }
}

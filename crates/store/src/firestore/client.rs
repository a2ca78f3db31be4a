//! The calls of google.firestore.v1 that this store makes, each with a deadline, and only so many at one time.

use std::{collections::HashMap, future::Future, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcloud_sdk::{
    GoogleAuthMiddleware,
    google::firestore::v1::{
        BatchGetDocumentsRequest, BatchWriteRequest, CommitRequest, Document, DocumentMask, ListenRequest,
        ListenResponse, RollbackRequest, RunAggregationQueryRequest, RunQueryRequest, StructuredAggregationQuery,
        StructuredQuery, Target, TransactionOptions, Write, batch_get_documents_request,
        batch_get_documents_response::Result as Looked,
        firestore_client::FirestoreClient,
        listen_request, run_aggregation_query_request, run_query_request,
        structured_aggregation_query::{self, Aggregation, aggregation},
        target::{self, query_target},
        transaction_options,
        value::ValueType,
    },
    prost_types::Timestamp,
};
use tokio::sync::Semaphore;
use tonic::{Request, Streaming};

use super::{
    clock::{Micros, micros},
    fail::Fail,
    query,
};

/// Longest wait for the answer of one call, in seconds.
pub(super) const CALL_SECS_MAX: u64 = 5;
/// Most calls under way at one time; the service takes 100 on a connection.
const CALLS_MAX: usize = 64;
/// Most documents that one call asks for by name.
const GET_DOCUMENTS_MAX: usize = 500;
/// Most such calls of one read at one time.
const GETS_MAX: usize = 4;
/// How long a commit of the emulator may have its time and not be seen yet, in milliseconds; a read then has a later time
/// and does not show it. Seen were 750 microseconds, once in some hundred reads beside four writers. The service keeps its
/// word.
const EMULATOR_SETTLING_MS: u64 = 25;
/// Most bytes of one message from the service; a document has at most 1 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// See the module.
pub(super) struct Client {
    api: FirestoreClient<GoogleAuthMiddleware>,
    database: String,
    root: String,
    calls: Semaphore,
    /// How long what was committed may stay out of sight, in microseconds.
    settling: Micros,
}

/// Documents by name, and when they were read.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) documents: HashMap<String, Document>,
    /// Everything that was committed by then is in it.
    pub(super) read_at: Micros,
}

impl Got {
    pub(super) fn get(&self, name: &str) -> Option<&Document> {
        self.documents.get(name)
    }
}

/// Documents in the order of a query, and when they were read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) documents: Vec<Document>,
    /// Everything that was committed by then is in it.
    pub(super) read_at: Micros,
}

/// What was read in it must not have changed when it is committed.
#[derive(Clone, Debug)]
pub(super) struct Transaction(Vec<u8>);

impl Client {
    /// Of the service, or of an emulator.
    pub(super) fn new(api: FirestoreClient<GoogleAuthMiddleware>, database: String, is_emulator: bool) -> Self {
        let root = format!("{database}/documents");
        let api = api.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let settling = if is_emulator { EMULATOR_SETTLING_MS * 1_000 } else { 0 };
        Self { api, database, root, calls: Semaphore::new(CALLS_MAX), settling }
    }

    /// Waits until a read that begins then has a time behind all that was acknowledged before this call.
    pub(super) async fn settle(&self) {
        if self.settling > 0 {
            tokio::time::sleep(Duration::from_micros(self.settling)).await;
        }
    }

    /// What was surely seen by a read of these times: the first of them, less what may not have been in sight yet.
    fn seen(&self, times: Option<Micros>) -> Micros {
        times.unwrap_or_default().saturating_sub(self.settling)
    }

    /// What the names of all documents begin with.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    fn request<M>(message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(CALL_SECS_MAX));
        request
    }

    /// Waits for a place among the calls, and then at most so long for the answer.
    async fn in_time<T>(&self, what: &str, call: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
        let bounded = async {
            let _place = self.calls.acquire().await.map_err(|_| Fail::timed_out(what))?;
            let answer = tokio::time::timeout(Duration::from_secs(CALL_SECS_MAX), call).await;
            answer.unwrap_or_else(|_| Err(Fail::timed_out(what)))
        };
        let answer = tokio::time::timeout(Duration::from_secs(2 * CALL_SECS_MAX), bounded).await;
        answer.unwrap_or_else(|_| Err(Fail::timed_out(what)))
    }

    /// Documents by name; those that are not there are left out. `fields` are those that are wanted, all where it is
    /// `None`.
    pub(super) async fn get(&self, names: Vec<String>, fields: Option<&[&str]>) -> Result<Got, Fail> {
        let parts: Vec<Vec<String>> = names.chunks(GET_DOCUMENTS_MAX).map(<[String]>::to_vec).collect();
        let gets = parts.into_iter().map(|part| async move { Ok(self.get_some(part, fields, None).await?.0) });
        let got: Vec<Got> = stream::iter(gets).buffered(GETS_MAX).try_collect().await?;
        let read_at = got.iter().map(|got| got.read_at).min().unwrap_or_default();
        Ok(Got { documents: got.into_iter().flat_map(|got| got.documents).collect(), read_at })
    }

    /// Documents by name, in a transaction that is begun for them.
    pub(super) async fn get_guarded(&self, names: Vec<String>, fields: &[&str]) -> Result<(Got, Transaction), Fail> {
        use batch_get_documents_request::ConsistencySelector;
        use transaction_options::{ConcurrencyMode, Mode, ReadWrite};
        // Who reads stands in nobody's way: what changed is found by the commit.
        let mode = ReadWrite { concurrency_mode: ConcurrencyMode::Optimistic.into(), ..ReadWrite::default() };
        let options = TransactionOptions { mode: Some(Mode::ReadWrite(mode)) };
        let mut all = Got::default();
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
    ) -> Result<(Got, Option<Transaction>), Fail> {
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
                self.api.clone().batch_get_documents(Self::request(message)).await.map_err(failed)?.into_inner();
            let mut got = Got::default();
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

    /// Writes all of it, or nothing; gives the commit time.
    pub(super) async fn commit(&self, writes: Vec<Write>, transaction: Option<Transaction>) -> Result<Micros, Fail> {
        let message = CommitRequest {
            database: self.database.clone(),
            writes,
            transaction: transaction.map(|Transaction(id)| id).unwrap_or_default(),
            request_options: None,
        };
        self.in_time("commit", async {
            let answer = self.api.clone().commit(Self::request(message)).await;
            let committed = answer.map_err(|status| Fail::of_commit(&status))?.into_inner();
            committed.commit_time.map(micros).ok_or(Fail::Damaged("a commit without a time"))
        })
        .await
    }

    /// Writes each by itself; gives how many were carried out.
    pub(super) async fn write_each(&self, writes: Vec<Write>) -> Result<usize, Fail> {
        let message = BatchWriteRequest {
            database: self.database.clone(),
            writes,
            labels: HashMap::new(),
            request_options: None,
        };
        self.in_time("write", async {
            let answer = self.api.clone().batch_write(Self::request(message)).await;
            let answer = answer.map_err(|status| Fail::of("write", &status))?.into_inner();
            Ok(answer.status.iter().filter(|status| status.code == 0).count())
        })
        .await
    }

    /// Ends a transaction that is not committed, as it may hold up others until it is forgotten.
    pub(super) async fn rollback(&self, Transaction(transaction): Transaction) {
        let message = RollbackRequest { database: self.database.clone(), transaction, request_options: None };
        let ended = self.in_time("rollback", async {
            let answer = self.api.clone().rollback(Self::request(message)).await;
            answer.map_err(|status| Fail::of("rollback", &status)).map(drop)
        });
        if let Err(fail) = ended.await {
            tracing::debug!("a transaction of Firestore ends by itself: {fail:?}");
        }
    }

    /// What a query finds. Every query is checked against the declared indexes: the emulator has none to miss.
    pub(super) async fn query(&self, asked: StructuredQuery) -> Result<Found, Fail> {
        debug_assert_eq!(query::check(&asked), Ok(()));
        let message = RunQueryRequest {
            parent: self.root.clone(),
            query_type: Some(run_query_request::QueryType::StructuredQuery(asked)),
            consistency_selector: None,
            explain_options: None,
            request_options: None,
        };
        self.in_time("query", async {
            let failed = |status| Fail::of("query", &status);
            let mut answers = self.api.clone().run_query(Self::request(message)).await.map_err(failed)?.into_inner();
            let mut found = Found::default();
            let mut read_at = None;
            while let Some(answer) = answers.message().await.map_err(failed)? {
                read_at = earlier(read_at, answer.read_time);
                found.documents.extend(answer.document);
            }
            found.read_at = self.seen(read_at);
            Ok(found)
        })
        .await
    }

    /// How many a query finds, and when it was read.
    pub(super) async fn count(&self, asked: StructuredQuery) -> Result<(u64, Micros), Fail> {
        debug_assert_eq!(query::check(&asked), Ok(()));
        let count = aggregation::Operator::Count(aggregation::Count { up_to: None });
        let counted = StructuredAggregationQuery {
            aggregations: vec![Aggregation { alias: "count".to_owned(), operator: Some(count) }],
            query_type: Some(structured_aggregation_query::QueryType::StructuredQuery(asked)),
        };
        let message = RunAggregationQueryRequest {
            parent: self.root.clone(),
            query_type: Some(run_aggregation_query_request::QueryType::StructuredAggregationQuery(counted)),
            consistency_selector: None,
            explain_options: None,
            request_options: None,
        };
        self.in_time("count", async {
            let failed = |status| Fail::of("count", &status);
            let mut answers =
                self.api.clone().run_aggregation_query(Self::request(message)).await.map_err(failed)?.into_inner();
            let mut read_at = None;
            while let Some(answer) = answers.message().await.map_err(failed)? {
                read_at = earlier(read_at, answer.read_time);
                let value = answer.result.and_then(|mut result| result.aggregate_fields.remove("count"));
                if let Some(ValueType::IntegerValue(count)) = value.and_then(|value| value.value_type) {
                    return Ok((u64::try_from(count).unwrap_or(0), self.seen(read_at)));
                }
            }
            Err(Fail::Damaged("a count without a number"))
        })
        .await
    }

    /// Follows what a query finds. The stream has no deadline; the connection's keep-alive ends it when nobody is there.
    pub(super) async fn listen(&self, asked: StructuredQuery) -> Result<Streaming<ListenResponse>, Fail> {
        debug_assert_eq!(query::check(&asked), Ok(()));
        let wanted = target::QueryTarget {
            parent: self.root.clone(),
            query_type: Some(query_target::QueryType::StructuredQuery(asked)),
        };
        let wanted = Target {
            target_id: 1,
            once: false,
            expected_count: None,
            target_type: Some(target::TargetType::Query(wanted)),
            resume_type: None,
        };
        let message = ListenRequest {
            database: self.database.clone(),
            labels: HashMap::new(),
            target_change: Some(listen_request::TargetChange::AddTarget(wanted)),
            request_options: None,
        };
        // The stream of requests stays open for as long as answers are wanted.
        let requests = stream::once(async { message }).chain(stream::pending());
        let call = async {
            let answer = self.api.clone().listen(Request::new(requests)).await;
            answer.map(tonic::Response::into_inner).map_err(|status| Fail::of("listen", &status))
        };
        let answer = tokio::time::timeout(Duration::from_secs(CALL_SECS_MAX), call).await;
        answer.unwrap_or_else(|_| Err(Fail::timed_out("listen")))
    }
}

/// A stream of answers may have been read at several times; what is known of all is what was there at the first.
fn earlier(known: Option<Micros>, time: Option<Timestamp>) -> Option<Micros> {
    match (known, time.map(micros)) {
        (Some(known), Some(time)) => Some(known.min(time)),
        (known, time) => known.or(time),
    }
}

//! Calls by query: running it, counting, listening.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use gcloud_sdk::google::firestore::v1::{
    Document, ListenRequest, ListenResponse, RunAggregationQueryRequest, RunQueryRequest, StructuredAggregationQuery,
    StructuredQuery, Target, listen_request, run_aggregation_query_request, run_query_request,
    structured_aggregation_query::{self, Aggregation, aggregation},
    target::{self, query_target},
    value::ValueType,
};
use tonic::{Request, Streaming};

use super::{
    client::{CALL_SECS_MAX, Client, earlier},
    clock::Micros,
    fail::Fail,
};
use crate::firestore::documents::index;

/// Documents in the order of a query, and the time of the read.
#[derive(Debug, Default)]
pub(crate) struct QueryAnswer {
    pub(crate) documents: Vec<Document>,
    /// Documents that the service charges for.
    pub(crate) charged: u64,
    /// Every commit up to this time is in the answer.
    pub(crate) read_at: Micros,
}

impl Client {
    /// The documents of a query. Debug builds check every query against the declared indexes, because the emulator has
    /// none.
    pub(crate) async fn query(&self, asked: StructuredQuery) -> Result<QueryAnswer, Fail> {
        debug_assert_eq!(index::check(&asked), Ok(()));
        let message = RunQueryRequest {
            parent: self.root.clone(),
            query_type: Some(run_query_request::QueryType::StructuredQuery(asked)),
            consistency_selector: None,
            explain_options: None,
            request_options: None,
        };
        self.in_time("query", async {
            let failed = |status| Fail::of("query", &status);
            let mut answers = self.line.api().run_query(Self::request(message)).await.map_err(failed)?.into_inner();
            let mut found = QueryAnswer::default();
            let mut read_at = None;
            while let Some(answer) = answers.message().await.map_err(failed)? {
                read_at = earlier(read_at, answer.read_time);
                found.documents.extend(answer.document);
            }
            found.read_at = self.seen(read_at);
            found.charged = self.reads.count_query(found.documents.len());
            Ok(found)
        })
        .await
    }

    /// The number of documents of a query, at most `up_to`, and the time of the read.
    pub(crate) async fn count(&self, asked: StructuredQuery, up_to: u64) -> Result<(u64, Micros), Fail> {
        debug_assert_eq!(index::check(&asked), Ok(()));
        let most = i64::try_from(up_to).unwrap_or(i64::MAX);
        let count = aggregation::Operator::Count(aggregation::Count { up_to: Some(most) });
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
            let paid = self.reads.pay_for_count(up_to);
            let failed = |status| Fail::of("count", &status);
            let mut answers =
                self.line.api().run_aggregation_query(Self::request(message)).await.map_err(failed)?.into_inner();
            let mut read_at = None;
            while let Some(answer) = answers.message().await.map_err(failed)? {
                read_at = earlier(read_at, answer.read_time);
                let value = answer.result.and_then(|mut result| result.aggregate_fields.remove("count"));
                if let Some(ValueType::IntegerValue(count)) = value.and_then(|value| value.value_type) {
                    let count = u64::try_from(count).unwrap_or(0);
                    paid.settle(count);
                    return Ok((count, self.seen(read_at)));
                }
            }
            Err(Fail::Damaged("a count without a number"))
        })
        .await
    }

    /// A stream of changes to the documents of a query. It has no deadline; the connection's keep-alive ends it,
    /// and its reader does when the connection is replaced.
    pub(crate) async fn listen(&self, asked: StructuredQuery) -> Result<Streaming<ListenResponse>, Fail> {
        debug_assert_eq!(index::check(&asked), Ok(()));
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
            let answer = self.line.api().listen(Request::new(requests)).await;
            answer.map(tonic::Response::into_inner).map_err(|status| Fail::of("listen", &status))
        };
        let answer = tokio::time::timeout(Duration::from_secs(CALL_SECS_MAX), call).await;
        answer.unwrap_or_else(|_| Err(Fail::timed_out("listen")))
    }
}

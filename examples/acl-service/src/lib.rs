//! A reference access service for rnostr, as small as one can be: the members of groups stand in a JSON file, which is
//! read anew for each question.
//!
//! The relay asks `GET /groups/{id}` with a bearer token (docs/access-service.md). A group of the file is answered with
//! 200 and its value, any other one with 404. A file that cannot be read is a 500, by which the relay learns nothing:
//! it goes by its last answers for a while, and then closes the groups.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    routing::get,
};
use serde_json::Value;

/// Most bytes of the file of groups.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The groups of a file, for clients that have the token.
#[derive(Debug)]
pub struct Directory {
    file: PathBuf,
    token: Option<String>,
    questions: AtomicU64,
}

impl Directory {
    /// The groups of `file`. Without a token everybody is answered.
    #[must_use]
    pub fn new(file: PathBuf, token: Option<String>) -> Arc<Self> {
        Arc::new(Self { file, token, questions: AtomicU64::new(0) })
    }

    /// Number of questions so far.
    #[must_use]
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }

    /// The service as a router, for a server of any kind.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().route("/groups/{id}", get(answer)).with_state(self)
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // The time of the comparison tells the length of the token alone.
        given.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|given| {
            let differs = given.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
            given.len() == token.len() && differs == 0
        })
    }

    async fn group(&self, id: &str) -> Result<Option<Value>, StatusCode> {
        let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
        if tokio::fs::metadata(&self.file).await.map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let text = tokio::fs::read(&self.file).await.map_err(failed)?;
        let mut groups: Value = serde_json::from_slice(&text).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(groups.get_mut(id).map(Value::take))
    }
}

async fn answer(
    State(directory): State<Arc<Directory>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    if !directory.lets_in(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    directory.questions.fetch_add(1, Ordering::Relaxed);
    directory.group(&id).await?.map(Json).ok_or(StatusCode::NOT_FOUND)
}

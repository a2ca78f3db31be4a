//! The values in a request's path.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

/// The values in the path, percent-decoded. A path that is not UTF-8 has none: it names nothing that is here.
pub(crate) struct PathValues(Option<RawPathParams>);

impl PathValues {
    /// The value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.iter().find(|(it, _)| *it == name).map(|(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathValues {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(RawPathParams::from_request_parts(parts, state).await.ok()))
    }
}

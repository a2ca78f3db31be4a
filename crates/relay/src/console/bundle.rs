//! The files of the page, which are in the binary.
//!
//! They are made from `console/` by its build and committed, so that the relay's build needs no other language.

use std::{
    io::Write as _,
    sync::{Arc, OnceLock},
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use flate2::{Compression, write::GzEncoder};
use nostr_protocol::hex;
use sha2::{Digest as _, Sha256};

use crate::app::App;

/// A file of the page: its name, its media type and its bytes.
type File = (&'static str, &'static str, &'static [u8]);

/// The file that `/console` answers with.
const INDEX: &str = "index.html";

/// Every file of the page.
const FILES: [File; 3] = [
    (INDEX, "text/html; charset=utf-8", include_bytes!("../../../../console/dist/index.html")),
    ("console.js", "text/javascript; charset=utf-8", include_bytes!("../../../../console/dist/console.js")),
    ("console.css", "text/css; charset=utf-8", include_bytes!("../../../../console/dist/console.css")),
];

/// The files as they are sent. They are compressed once, when somebody asks first.
#[derive(Default)]
pub(super) struct Bundle([OnceLock<Sent>; FILES.len()]);

/// A file as it is sent.
struct Sent {
    etag: HeaderValue,
    gzip: Bytes,
}

impl Sent {
    fn of(bytes: &[u8]) -> Self {
        let tag = format!("W/\"{}\"", hex::to_hex(&Sha256::digest(bytes)[..16]));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory does not fail.
        let written = gzip.write_all(bytes).and_then(|()| gzip.finish()).unwrap_or_default();
        Self {
            etag: HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("W/\"\"")),
            gzip: written.into(),
        }
    }
}

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    answer(&app, INDEX, &headers)
}

/// A file beside the page.
pub(super) async fn file(State(app): State<Arc<App>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&app, &name, &headers)
}

/// `/console/`, where a page's relative links would lead elsewhere than at `/console`.
pub(super) async fn slash() -> Redirect {
    Redirect::permanent(super::PATH)
}

/// A path of the console at which nothing is.
pub(super) fn absent() -> Response {
    (StatusCode::NOT_FOUND, "nothing is here; the page is at /console\n").into_response()
}

fn answer(app: &App, name: &str, headers: &HeaderMap) -> Response {
    let Some(at) = FILES.iter().position(|(it, ..)| *it == name) else { return absent() };
    let (_, media_type, bytes) = FILES[at];
    let sent = app.console.bundle.0[at].get_or_init(|| Sent::of(bytes));
    let common = [
        (header::ETAG, sent.etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|asked| asked == sent.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let media_type = [(header::CONTENT_TYPE, media_type)];
    if takes_gzip(headers) {
        return (common, media_type, [(header::CONTENT_ENCODING, "gzip")], sent.gzip.clone()).into_response();
    }
    (common, media_type, bytes).into_response()
}

/// Whether the client takes gzip. A client that gives it the quality 0 does not (RFC 9110, 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|one| {
        let (coding, quality) = one.split_once(';').unwrap_or((one, "q=1"));
        // Qualities of nothing are 0, 0. and 0.000.
        let quality = quality.trim().trim_start_matches("q=").trim_end_matches(['0', '.']);
        coding.trim().eq_ignore_ascii_case("gzip") && !quality.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_clients_that_take_it() {
        for (accepted, is_taken) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=1", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
            assert_eq!(takes_gzip(&headers), is_taken, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}

//! The choices between NIP-11's document and the page for people, and between the two texts of the metrics, by the
//! `Accept` of a request.
//!
//! Source: NIP-11; RFC 9110, 12.4.2 and 12.5.1.

use axum::http::{HeaderMap, header};

/// A quality of 1, in thousandths.
const FULL: u16 = 1_000;

/// A media range of `Accept`, with the quality that the client gives it.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

/// Returns whether the client prefers NIP-11's document to the page. Of equal qualities the document wins where the
/// client names it: no browser does.
pub(super) fn prefers_document(headers: &HeaderMap) -> bool {
    let ranges = ranges(headers);
    let (document, page) = (quality(&ranges, "application", "nostr+json"), quality(&ranges, "text", "html"));
    let is_named = ranges.iter().any(|range| range.precision("application", "nostr+json") == Some(2));
    document > page || (document > 0 && document == page && is_named)
}

/// Returns whether the client asks for OpenMetrics by its name, and does not prefer plain text.
pub(super) fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let ranges = ranges(headers);
    let (open, plain) = (("application", "openmetrics-text"), ("text", "plain"));
    let is_named = ranges.iter().any(|range| range.precision(open.0, open.1) == Some(2));
    let quality_of = |(kind, subtype)| quality(&ranges, kind, subtype);
    is_named && quality_of(open) > 0 && quality_of(open) >= quality_of(plain)
}

fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let fields = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|field| field.split(',')).filter_map(Range::parse).collect()
}

/// The quality of a media type: that of the most precise range that holds it, else 0.
fn quality(ranges: &[Range<'_>], kind: &str, subtype: &str) -> u16 {
    let holding = ranges.iter().filter_map(|range| Some((range.precision(kind, subtype)?, range.quality)));
    holding.max().map_or(0, |(_, quality)| quality)
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut quality = FULL;
        for parameter in parts {
            if let Some((name, value)) = parameter.split_once('=')
                && name.trim().eq_ignore_ascii_case("q")
            {
                let value: f32 = value.trim().parse().ok()?;
                quality = (value.clamp(0.0, 1.0) * f32::from(FULL)).round() as u16;
            }
        }
        Some(Self { kind, subtype, quality })
    }

    /// Number of the parts of a media type that the range names; `None` if it does not hold the type.
    fn precision(&self, kind: &str, subtype: &str) -> Option<u8> {
        if self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype) {
            Some(2)
        } else if self.kind.eq_ignore_ascii_case(kind) && self.subtype == "*" {
            Some(1)
        } else {
            (self.kind == "*" && self.subtype == "*").then_some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn prefers(fields: &[&'static str]) -> bool {
        let fields = fields.iter().map(|field| (header::ACCEPT, HeaderValue::from_static(field)));
        prefers_document(&fields.collect())
    }

    #[test]
    fn prometheus_gets_openmetrics_and_a_browser_plain_text() {
        let prefers =
            |field| prefers_openmetrics(&[(header::ACCEPT, HeaderValue::from_static(field))].into_iter().collect());
        assert!(prefers(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(prefers("application/openmetrics-text"));
        for field in ["*/*", "application/*", "text/plain, application/openmetrics-text;q=0.5", "text/html,*/*;q=0.8"] {
            assert!(!prefers(field), "{field}");
        }
        assert!(!prefers("application/openmetrics-text;q=0"));
    }

    #[test]
    fn accept_is_read_without_case_and_as_a_list() {
        for accept in [
            &["application/nostr+json"][..],
            &["Application/Nostr+JSON"],
            &["application/nostr+json, */*"],
            &["text/plain;q=0.3, application/nostr+json ; charset=utf-8; q=0.9, text/html;q=0.5"],
            &["text/plain", "application/nostr+json"],
            &["text/html, application/nostr+json"],
            &["application/*"],
        ] {
            assert!(prefers(accept), "{accept:?}");
        }
    }

    #[test]
    fn a_browser_and_a_client_without_a_wish_get_the_page() {
        for accept in [
            &[][..],
            &["*/*"],
            &[""],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            &["application/nostr+json;q=0, */*"],
            &["application/nostr+json;q=0.2, text/html"],
            &["application/nostr+jsonx"],
            &["image/png"],
        ] {
            assert!(!prefers(accept), "{accept:?}");
        }
    }
}

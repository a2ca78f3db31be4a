//! Logs: text for people on a terminal, one JSON object a line elsewhere; and tags that stand for owners in them.
//!
//! Source: MLS Gateway specification, "Structured Logging (JSON)"; docs/rules.md, "Elsewhere" 3.

use std::{fmt, io, io::IsTerminal as _};

use nostr_protocol::{PublicKey, hex};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use crate::config::{LogFormat, Server};

/// Starts logging to standard error. A second call changes nothing, so that one process may run several relays.
pub fn init(server: &Server) {
    // The configuration has parsed the filter; one made by hand that does not parse loses its wrong parts.
    let filter = EnvFilter::new(&server.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // An error means that a subscriber is there already.
    let _ = match server.log_format {
        LogFormat::Json => builder.event_format(JsonLine).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
}

/// The specification's line: `timestamp`, `level`, `target`, `message` and, under `fields`, everything else.
struct JsonLine;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    target: &'a str,
    message: String,
    fields: Map<String, Value>,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            timestamp,
            level: event.metadata().level().as_str(),
            target: fields.log_target.as_deref().unwrap_or_else(|| event.metadata().target()),
            message: fields.message,
            fields: fields.others,
        };
        writeln!(writer, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    /// The module of a line that came through the `log` crate, as those of rustls do.
    log_target: Option<String>,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(target)) => self.log_target = Some(target),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

/// Tags for owners in logs: a key has one tag while this process runs, and nobody else can tell whose it is.
pub(crate) struct OwnerTags {
    secret: [u8; 32],
}

/// 8 hex digits that stand for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerTag([u8; 4]);

impl OwnerTags {
    /// Tags under a secret that was drawn at random for this process.
    pub(crate) const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The tag of `key`.
    ///
    /// Both hashed parts have a fixed length and most of the hash is cut off, so the plain prefix is a sound key.
    pub(crate) fn owner_tag(&self, key: &PublicKey) -> OwnerTag {
        self.tag(key.as_bytes())
    }

    /// The tag of an order's subject: that of a key if it is one in hex.
    pub(crate) fn subject_tag(&self, subject: &str) -> OwnerTag {
        let hashed = || Sha256::digest(subject).into();
        self.tag(&hex::parse_lower(subject.as_bytes()).unwrap_or_else(hashed))
    }

    fn tag(&self, bytes: &[u8; 32]) -> OwnerTag {
        let hash: [u8; 32] = Sha256::new().chain_update(self.secret).chain_update(bytes).finalize().into();
        OwnerTag([hash[0], hash[1], hash[2], hash[3]])
    }
}

impl fmt::Debug for OwnerTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerTags(…)")
    }
}

impl fmt::Display for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::to_hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_the_specifications_shape() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt().event_format(JsonLine).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "mls_gateway::mod", event_kind = 443, owner = "abc123", "Processing \"{}\"\n", 1);
            tracing::warn!(ok = true, "plain");
        });
        let text = String::from_utf8(sink.0.lock().clone()).expect("UTF-8");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["target"], "mls_gateway::mod");
        assert_eq!(lines[0]["message"], "Processing \"1\"\n");
        assert_eq!(lines[0]["fields"], serde_json::json!({"event_kind": 443, "owner": "abc123"}));
        let stamp = lines[0]["timestamp"].as_str().expect("a time");
        assert!(stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T', "{stamp}");
        assert_eq!(lines[1]["fields"], serde_json::json!({"ok": true}));
        let keys: Vec<&String> = lines[1].as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["fields", "level", "message", "target", "timestamp"]);
    }

    #[test]
    fn a_tag_is_stable_in_a_process_and_different_in_the_next() {
        let key = PublicKey::from_bytes([7; 32]);
        let tags = OwnerTags::new([1; 32]);
        assert_eq!(tags.owner_tag(&key), tags.owner_tag(&key));
        assert_ne!(tags.owner_tag(&key), tags.owner_tag(&PublicKey::from_bytes([8; 32])));
        assert_ne!(tags.owner_tag(&key), OwnerTags::new([2; 32]).owner_tag(&key));
        assert_eq!(tags.owner_tag(&key).to_string().len(), 8);
        assert_eq!(tags.subject_tag(&key.to_hex()), tags.owner_tag(&key));
        assert_ne!(tags.subject_tag("192.0.2.1/32"), tags.subject_tag("192.0.2.2/32"));
    }
}

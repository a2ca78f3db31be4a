//! Traces: one span for each event and each request, with a span for each of its stages, sent by OTLP.
//!
//! A trace is made when its event or request has ended, of the times that were noted on the way, so that one costs
//! nothing before. A span names no key, id, group or address. Without the feature `otlp` no trace is made.

use std::time::Instant;

use nostr_protocol::Kind;

use super::{
    request_id::RequestId,
    slow::{EventTimes, ReadWork},
};

/// The stages of a request, with the time at which each ended; the first begins with the request.
pub(crate) type Stages<'a> = &'a [(&'static str, Instant)];

/// The spans of one event or request.
struct Spans<'a> {
    /// `EVENT`, `REQ`, `COUNT` or `NEG-OPEN`.
    name: &'static str,
    request: RequestId,
    began: Instant,
    stages: Stages<'a>,
    /// Numbers that describe it, by their names.
    numbers: &'a [(&'static str, u64)],
}

impl Traces {
    /// Traces an event that the store was asked about.
    pub(crate) fn event(&self, request: RequestId, kind: Kind, times: &EventTimes) {
        let stages = [("admission", times.handed), ("writer", times.batched), ("store", times.committed)];
        let numbers = [("nostr.kind", u64::from(kind.0))];
        self.send(&Spans { name: "EVENT", request, began: times.arrived, stages: &stages, numbers: &numbers });
    }

    /// Traces an event that was refused before.
    pub(crate) fn refused(&self, request: RequestId, kind: Kind, arrived: Instant) {
        let stages = [("admission", Instant::now())];
        let numbers = [("nostr.kind", u64::from(kind.0)), ("nostr.refused", 1)];
        self.send(&Spans { name: "EVENT", request, began: arrived, stages: &stages, numbers: &numbers });
    }

    /// Traces a request that was answered.
    pub(crate) fn read(
        &self,
        name: &'static str,
        request: RequestId,
        began: Instant,
        stages: Stages<'_>,
        work: ReadWork,
    ) {
        let numbers =
            [("nostr.pages", work.pages as u64), ("nostr.events", work.events as u64), ("nostr.units", work.units)];
        self.send(&Spans { name, request, began, stages, numbers: &numbers });
    }
}

#[cfg(feature = "otlp")]
pub(crate) use self::sending::Traces;
#[cfg(not(feature = "otlp"))]
pub(crate) use self::without::Traces;

#[cfg(not(feature = "otlp"))]
mod without {
    use super::Spans;
    use crate::{config::Server, error::StartError, system::clock::Clock};

    /// No traces, in a build without them. The configuration cannot ask for any then.
    pub(crate) struct Traces;

    impl Traces {
        pub(crate) fn open(_: &Server, _: &dyn Clock) -> Result<Self, StartError> {
            Ok(Self)
        }

        pub(super) fn send(&self, spans: &Spans<'_>) {
            tracing::trace!(request = %spans.request, name = spans.name, began = ?spans.began, stages = ?spans.stages,
                numbers = ?spans.numbers, "request ended");
        }

        pub(crate) const fn is_on(&self) -> bool {
            false
        }

        pub(crate) fn close(&self) {}
    }
}

#[cfg(feature = "otlp")]
mod sending {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use opentelemetry::{
        Context, KeyValue,
        trace::{Span as _, SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _},
    };
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::{
        Resource,
        trace::{SdkTracer, SdkTracerProvider},
    };

    use super::Spans;
    use crate::{config::Server, error::StartError, system::clock::Clock};

    /// Longest wait at the end for the collector to take the last spans, in seconds.
    const LAST_SPANS_SECS_MAX: u64 = 2;

    /// The way to the collector that the operator named, if there is one. Spans wait in the library's queue of 2,048,
    /// which drops those that find no room.
    pub(crate) struct Traces(Option<Sending>);

    struct Sending {
        provider: SdkTracerProvider,
        tracer: SdkTracer,
        /// One moment by both clocks.
        moment: (SystemTime, Instant),
    }

    impl Traces {
        /// Traces for the collector at `otlp_endpoint`. The collector need not answer yet.
        ///
        /// # Errors
        /// [`StartError`] if the endpoint is none that a client can be made for.
        pub(crate) fn open(server: &Server, clock: &dyn Clock) -> Result<Self, StartError> {
            let Some(endpoint) = &server.otlp_endpoint else { return Ok(Self(None)) };
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str()).build();
            let exporter =
                exporter.map_err(|error| StartError::new(format!("server.otlp_endpoint {endpoint}: {error}")))?;
            let resource = Resource::builder().with_service_name("rnostr");
            let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
            let provider =
                SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
            let moment = (UNIX_EPOCH + Duration::from_millis(clock.now_ms()), Instant::now());
            Ok(Self(Some(Sending { tracer: provider.tracer("rnostr"), provider, moment })))
        }

        pub(super) fn send(&self, spans: &Spans<'_>) {
            let Some(Sending { tracer, moment, .. }) = &self.0 else { return };
            let time = |at: Instant| match at.checked_duration_since(moment.1) {
                Some(later) => moment.0 + later,
                None => moment.0 - moment.1.duration_since(at),
            };
            let numbers = spans
                .numbers
                .iter()
                .map(|(name, number)| KeyValue::new(*name, i64::try_from(*number).unwrap_or(i64::MAX)));
            let request = KeyValue::new("request.id", spans.request.to_string());
            let root = tracer
                .span_builder(spans.name)
                .with_kind(SpanKind::Server)
                .with_start_time(time(spans.began))
                .with_attributes(numbers.chain([request]));
            let context = Context::new().with_span(tracer.build_with_context(root, &Context::new()));
            let mut began = spans.began;
            for (stage, ended) in spans.stages {
                let stage = tracer.span_builder(*stage).with_start_time(time(began));
                tracer.build_with_context(stage, &context).end_with_timestamp(time(*ended));
                began = *ended;
            }
            context.span().end_with_timestamp(time(began));
        }

        pub(crate) const fn is_on(&self) -> bool {
            self.0.is_some()
        }

        /// Sends the spans that wait. Blocks for at most [`LAST_SPANS_SECS_MAX`].
        pub(crate) fn close(&self) {
            if let Some(sending) = &self.0 {
                let _ = sending.provider.shutdown_with_timeout(Duration::from_secs(LAST_SPANS_SECS_MAX));
            }
        }
    }
}

//! The recorder behind `/metrics`: the one that the program installs for the whole process, or one of a relay's own.
//!
//! Source: MLS Gateway specification, "Custom Metrics": `counter!` and `histogram!` in code that extends the relay
//! count into the installed recorder, and appear beside the relay's own metrics.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::catalogue::{ALL, Metric, Shape};

/// Upper bounds of a histogram that the catalogue does not name, as code that extends the relay records it.
const CUSTOM_BUCKETS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

static META: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// See the module. Clones are one recorder.
#[derive(Clone)]
pub struct Recorder {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A recorder that nobody else counts into.
    #[must_use]
    pub fn new() -> Self {
        let recorder = Arc::new(builder().build_recorder());
        let made = Self { handle: recorder.handle(), recorder };
        made.describe();
        made
    }

    /// The recorder of this process, into which the macros of the crate `metrics` count. The first call installs it. If
    /// the program has installed another one, the macros keep counting there.
    #[must_use]
    pub fn installed() -> Self {
        static INSTALLED: OnceLock<Recorder> = OnceLock::new();
        let install = || {
            let made = Self::new();
            if metrics::set_global_recorder(Arc::clone(&made.recorder)).is_err() {
                tracing::warn!("this program has a recorder of metrics already: /metrics does not show what it counts");
            }
            made
        };
        INSTALLED.get_or_init(install).clone()
    }

    fn describe(&self) {
        for Metric { name, shape, unit, help, .. } in ALL {
            let unit = Unit::from_string(unit);
            let (name, help) = (KeyName::from_const_str(name), (*help).into());
            match shape {
                Shape::Counter => self.recorder.describe_counter(name, unit, help),
                Shape::Gauge => self.recorder.describe_gauge(name, unit, help),
                Shape::Histogram(_) => self.recorder.describe_histogram(name, unit, help),
            }
        }
    }

    pub(super) fn counter(&self, metric: &Metric, labels: &[(&str, &str)]) -> Counter {
        self.recorder.register_counter(&key(metric, labels), &META)
    }

    pub(super) fn gauge(&self, metric: &Metric, labels: &[(&str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(metric, labels), &META)
    }

    pub(super) fn histogram(&self, metric: &Metric, labels: &[(&str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(metric, labels), &META)
    }

    /// Counts the recorded values into their buckets. Until then each takes memory.
    pub(super) fn settle(&self) {
        self.handle.run_upkeep();
    }

    /// The text of all metrics.
    pub(super) fn text(&self) -> String {
        self.handle.render()
    }
}

fn key(metric: &Metric, labels: &[(&str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new((*name).to_owned(), (*value).to_owned()));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

#[allow(clippy::expect_used, reason = "all buckets are literals that are not empty")]
fn builder() -> PrometheusBuilder {
    let builder = PrometheusBuilder::new().set_buckets(CUSTOM_BUCKETS).expect("buckets are given");
    ALL.iter().fold(builder, |builder, metric| match metric.shape {
        Shape::Histogram(buckets) => {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder.set_buckets_for_metric(matcher, buckets).expect("buckets are given")
        }
        Shape::Counter | Shape::Gauge => builder,
    })
}

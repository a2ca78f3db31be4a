//! The two texts of `/metrics`: Prometheus' own, and OpenMetrics for clients that ask for it.
//!
//! Source: Prometheus, "Exposition formats"; OpenMetrics 1.0.0, "Text format". Both are made of the recorder's text,
//! and bounds of buckets are spelled alike in both, so that a series has one name whichever text is read.

use std::fmt::Write as _;

/// A text of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The recorder's text in this format.
    pub(super) fn of(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 8);
        for family in text.split("\n\n").filter(|family| !family.trim().is_empty()) {
            self.write(family, &mut out);
        }
        if self == Self::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    /// Writes the lines of one metric.
    fn write(self, family: &str, out: &mut String) {
        let Some((name, kind)) = family.lines().find_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) else {
            return;
        };
        // The recorder's counters are whole numbers. A gauge of this name is a counter with a fraction.
        let kind = if kind == "gauge" && name.ends_with("_total") { "counter" } else { kind };
        let (shown, kind) = match (self, kind, name.strip_suffix("_total")) {
            (Self::OpenMetrics, "counter", Some(shown)) => (shown, kind),
            // OpenMetrics would have such a counter renamed.
            (Self::OpenMetrics, "counter", None) => (name, "unknown"),
            _ => (name, kind),
        };
        for line in family.lines() {
            if let Some(help) = line.strip_prefix("# HELP ").and_then(|line| line.strip_prefix(name)) {
                let help = if self == Self::OpenMetrics { help.replace('"', "\\\"") } else { help.to_owned() };
                let _ = writeln!(out, "# HELP {shown}{help}");
            } else if line.starts_with("# TYPE ") {
                let _ = writeln!(out, "# TYPE {shown} {kind}");
            } else if !line.is_empty() {
                out.push_str(&with_canonical_bound(line));
                out.push('\n');
            }
        }
    }
}

/// The line, with a whole bound of a bucket written as `1.0`.
fn with_canonical_bound(line: &str) -> String {
    let Some((before, (bound, after))) =
        line.split_once("le=\"").and_then(|(before, rest)| Some((before, rest.split_once('"')?)))
    else {
        return line.to_owned();
    };
    let is_whole = !bound.is_empty() && bound.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole { format!("{before}le=\"{bound}.0\"{after}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total Says \"a\".\n# TYPE a_total counter\na_total{kind=\"1\"} 3\n\n\
        # TYPE custom counter\ncustom 1\n\n# TYPE cpu_seconds_total gauge\ncpu_seconds_total 1.5\n\n\
        # HELP h Long.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 2\n\
        h_sum 1\nh_count 2\n\n";

    #[test]
    fn counters_with_a_fraction_and_whole_bounds_are_mended() {
        let text = Format::Prometheus.of(TEXT);
        assert!(
            text.starts_with("# HELP a_total Says \"a\".\n# TYPE a_total counter\na_total{kind=\"1\"} 3\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE cpu_seconds_total counter\ncpu_seconds_total 1.5\n"), "{text}");
        assert!(text.contains("h_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 2\n"), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
    }

    #[test]
    fn openmetrics_names_counters_without_their_suffix() {
        let text = Format::OpenMetrics.of(TEXT);
        assert!(text.starts_with("# HELP a Says \\\"a\\\".\n# TYPE a counter\na_total{kind=\"1\"} 3\n"), "{text}");
        assert!(text.contains("# TYPE custom unknown\ncustom 1\n"), "{text}");
        assert!(text.contains("# TYPE cpu_seconds counter\ncpu_seconds_total 1.5\n"), "{text}");
        assert!(text.ends_with("h_count 2\n# EOF\n") && !text.contains("\n\n"), "{text}");
    }
}

//! `/metrics`: counts, both texts, the port of its own, and each query over a real Prometheus. Log lines and traces.

mod counts;
mod load;
mod logs;
mod port;
mod prometheus;
#[cfg(feature = "otlp")]
mod traces;

use std::net::SocketAddr;

use crate::support::http;

/// The metrics of the relay at an address.
pub async fn metrics(address: SocketAddr) -> String {
    let answer = http(address, "GET /metrics", &[]).await;
    assert_eq!(answer.status, 200);
    answer.body
}

/// The value of a series.
pub fn value(metrics: &str, series: &str) -> f64 {
    let found = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let found = found.unwrap_or_else(|| panic!("{series} in\n{metrics}"));
    found.parse().expect("a number")
}

//! Printed figures: rates, CPU time, latencies, and the physical limits beside them.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use nostr_protocol::testing::{EventBuilder, random_keypair};

use super::process::scratch;

/// Prints one line of figures.
pub fn line(what: &str, figures: &[(&str, String)]) {
    let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    println!("{what:<34} {}", figures.join("   "));
}

pub fn micros(time: Duration, of: usize) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6 / of as f64)
}

pub fn rate(count: usize, time: Duration) -> String {
    format!("{:.0}/s", count as f64 / time.as_secs_f64())
}

/// Median and 99th percentile.
pub fn percentiles(mut times: Vec<Duration>) -> [(&'static str, String); 2] {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    [
        ("p50", format!("{:.3} ms", at(0.5).as_secs_f64() * 1e3)),
        ("p99", format!("{:.3} ms", at(0.99).as_secs_f64() * 1e3)),
    ]
}

/// Prints the limits of the machine: one signature check, and one fsync of one page.
pub fn limits() {
    let keypair = random_keypair();
    let events: Vec<_> = (0..2_000).map(|n| EventBuilder::new(445).at(n).unverified(&keypair)).collect();
    let started = Instant::now();
    for event in events {
        assert!(event.verify().is_ok());
    }
    line("limit: one signature check", &[("CPU", micros(started.elapsed(), 2_000))]);
    let mut file = tempfile::tempfile_in(scratch()).unwrap();
    let times = (0..200)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    line("limit: one fsync", &percentiles(times));
}

//! A real Prometheus scrapes relays under load, and every query of the specification, the alerts and the dashboard has
//! an answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use rnostr_test_services::{Postgres, Prometheus, require};
use serde_json::Value;

use super::load;
use crate::support::{Keys, TestRelay, exchange_plainly, parse};

/// Longest wait until every query has an answer.
const ANSWERS: Duration = Duration::from_secs(90);

/// The specification's "Key Performance Indicators" and "Alerting Rules", as it writes them.
const SPECIFICATION: [&str; 6] = [
    "rate(mls_gateway_events_processed_total[5m])",
    "rate(mls_gateway_errors_total[5m]) / rate(mls_gateway_events_processed_total[5m])",
    "rate(mls_gateway_db_operation_duration_seconds_sum[5m]) / \n\
     rate(mls_gateway_db_operation_duration_seconds_count[5m])",
    "increase(mls_gateway_groups_updated_total[1h])",
    "rate(mls_gateway_errors_total[5m]) > 0.1",
    "histogram_quantile(0.95, mls_gateway_db_operation_duration_seconds_bucket)",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_specification_alerts_and_dashboard_returns_data() {
    let needed = Prometheus::available().and_then(|()| Postgres::shared_available());
    let Some(()) = require(needed) else { return };
    let admin = Keys::random();
    let configure = |config: &mut nostr_relay::config::Config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.open_bootstrap = true;
    };
    // One store of each sort: some metrics are of one sort alone.
    let alone = TestRelay::start_on("embedded", 1, configure).await;
    let pair = TestRelay::start_on("postgres", 2, configure).await;
    let (one, two) = (load::start(&alone, &admin).await, load::start(&pair, &admin).await);
    let targets: Vec<SocketAddr> = [alone.addresses(), pair.addresses()].concat();
    let prometheus = start(&targets);
    let address: SocketAddr = prometheus.address().parse().expect("an address");
    let mut open: BTreeMap<String, &str> = SPECIFICATION.iter().map(|query| ((*query).to_owned(), "")).collect();
    open.extend(queries_of_alerts(address).await.into_iter().map(|query| (query, "")));
    open.extend(queries_of_dashboard().into_iter().map(|query| (query, "")));
    let (all, until) = (open.len(), Instant::now() + ANSWERS);
    assert!(all > 60, "{all} queries were found");
    loop {
        let mut left = BTreeMap::new();
        for query in open.into_keys() {
            match ask(address, &query).await {
                Ok(()) => {}
                Err(why) => drop(left.insert(query, why)),
            }
        }
        assert!(!one.is_finished() && !two.is_finished(), "the load goes on");
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{} of {all} queries have no data:\n{left:#?}", left.len());
        open = left;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let scraped = get(address, "/api/v1/targets").await;
    for target in scraped["data"]["activeTargets"].as_array().expect("targets") {
        assert_eq!((target["health"].as_str(), target["lastError"].as_str()), (Some("up"), Some("")), "{target}");
    }
    one.abort();
    two.abort();
    println!("{all} queries returned data");
}

fn deployed(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Prometheus with the configuration that is deployed, apart from the targets and the pace.
fn start(targets: &[SocketAddr]) -> Prometheus {
    let config = std::fs::read_to_string(deployed("prometheus/prometheus.yml")).expect("the configuration");
    let line = "          - 127.0.0.1:8080\n";
    assert!(config.contains(line) && config.contains("_interval: 15s"), "{config}");
    let ours: String = targets.iter().map(|target| format!("          - {target}\n")).collect();
    let config = config.replace(line, &ours).replace("_interval: 15s", "_interval: 1s");
    Prometheus::start(&config, &deployed("prometheus/alerts.yml"))
}

/// Both sides of the comparison in the query of each alert: an alert is silent while the relays are well.
async fn queries_of_alerts(address: SocketAddr) -> Vec<String> {
    let rules = get(address, "/api/v1/rules").await;
    let groups = rules["data"]["groups"].as_array().expect("groups").clone();
    let queries: Vec<String> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .map(|rule| rule["query"].as_str().expect("a query").to_owned())
        .collect();
    assert!(queries.len() >= 20, "{queries:?}");
    queries.iter().flat_map(|query| sides(query)).collect()
}

/// The two sides of the last comparison outside parentheses, braces and quotes.
fn sides(query: &str) -> [String; 2] {
    let (mut depth, mut is_quoted, mut found) = (0, false, None);
    for (at, letter) in query.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '(' | '{' | '[' if !is_quoted => depth += 1,
            ')' | '}' | ']' if !is_quoted => depth -= 1,
            '<' | '>' if !is_quoted && depth == 0 => found = Some(at),
            _ => {}
        }
    }
    let at = found.unwrap_or_else(|| panic!("{query} compares nothing"));
    [query[..at].trim().to_owned(), query[at + 1..].trim_start_matches('=').trim().to_owned()]
}

/// The queries of the dashboard's panels, with Grafana's variables filled in.
fn queries_of_dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(deployed("grafana/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    let filled = queries.map(|query| query.replace("$__rate_interval", "1m").replace("$instance", ".*"));
    let filled: Vec<String> = filled.collect();
    assert!(filled.len() > 50 && filled.iter().all(|query| !query.contains('$')), "{filled:?}");
    filled
}

/// Asks for a query's value now.
///
/// # Errors
/// There is none, or none that is a number.
async fn ask(address: SocketAddr, query: &str) -> Result<(), &'static str> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = get(address, &format!("/api/v1/query?query={encoded}")).await;
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    let result = &answer["data"]["result"];
    if answer["data"]["resultType"] == "scalar" {
        return Ok(());
    }
    let series = result.as_array().expect("series");
    let is_number = |series: &Value| series["value"][1].as_str().is_some_and(|it| it.parse().is_ok_and(f64::is_finite));
    match (series.is_empty(), series.iter().any(is_number)) {
        (true, _) => Err("no series"),
        (false, true) => Ok(()),
        (false, false) => Err("no series with a number"),
    }
}

async fn get(address: SocketAddr, path: &str) -> Value {
    // HTTP/1.0 has no chunks.
    let bytes = exchange_plainly(address, path).await;
    let answer = parse(&bytes);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

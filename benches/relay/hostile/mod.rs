//! Honest clients beside an attack: fifty clients publish and subscribe at their own addresses, and their times to `OK`
//! and to delivery are taken twice, first in quiet and then while an attack runs from one address with thirty
//! connections. The relay has its default limits.

mod attacks;
mod honest;

use std::time::Duration;

use rnostr_test_services as services;
use tempfile::TempDir;

use self::{
    attacks::{ATTACKS, Attack},
    honest::{Crowd, Outcome},
};
use super::{
    process::{RelayProcess, scratch},
    report::line,
};

/// Time for which the honest clients are measured in quiet.
const QUIET: Duration = Duration::from_secs(15);
/// Time for which they are measured under attack.
const ATTACKED: Duration = Duration::from_secs(15);
/// Time after an attack at which the relay's memory is looked at again.
const RECOVERY: Duration = Duration::from_secs(5);
/// Pause between two looks at the relay's memory.
const LOOK: Duration = Duration::from_millis(100);

/// Runs each attack over each store that this machine has. `wanted` names attacks; without a name all run.
pub async fn hostile(wanted: &[String]) {
    let chosen: Vec<&Attack> = ATTACKS.iter().filter(|attack| attack.is_among(wanted)).collect();
    for attack in &chosen {
        let relay = RelayProcess::with_limits(TempDir::new_in(scratch()).unwrap(), "", attack.notes);
        run(attack, "embedded", &relay, None).await;
    }
    if services::require(services::Postgres::available()).is_some() {
        let server = services::Postgres::start(services::Options::durable());
        for attack in &chosen {
            let database = server.create_database();
            let store = format!("storage_backend = \"cloudsql\"\ndatabase_url = \"{database}\"\n");
            let relay = RelayProcess::with_limits(TempDir::new_in(scratch()).unwrap(), &store, attack.notes);
            run(attack, "PostgreSQL", &relay, Some(&database)).await;
        }
    }
}

async fn run(attack: &Attack, store: &str, relay: &RelayProcess, database: Option<&str>) {
    if attack.needs_database && database.is_none() {
        return;
    }
    let mut crowd = Crowd::connect(relay.port).await;
    let frames = attack.prepare();
    let quiet = crowd.measure(QUIET).await;
    let assault = attack.start(frames, relay.port, database);
    let measuring = crowd.measure(ATTACKED);
    let memory = highest_memory(relay);
    let attacked = tokio::select! {
        outcome = measuring => outcome,
        never = memory.run() => match never {},
    };
    let highest = memory.highest();
    let sent = assault.stop();
    tokio::time::sleep(RECOVERY).await;
    let name = format!("{}, {store}", attack.name);
    report(&name, &quiet, &attacked);
    line(
        "",
        &[
            ("frames of the attack", sent.to_string()),
            ("memory", mib(highest)),
            ("memory after", mib(relay.resident())),
        ],
    );
}

fn report(name: &str, quiet: &Outcome, attacked: &Outcome) {
    for (what, quiet, attacked) in
        [("OK", &quiet.to_ok, &attacked.to_ok), ("delivery", &quiet.to_delivery, &attacked.to_delivery)]
    {
        let ([q50, q99], [a50, a99]) = (honest::percentiles(quiet), honest::percentiles(attacked));
        line(
            &format!("{name}: {what}"),
            &[
                ("p50", format!("{q50:.1} -> {a50:.1} ms")),
                ("p99", format!("{q99:.1} -> {a99:.1} ms ({:.1} times)", a99 / q99)),
            ],
        );
    }
    line(
        "",
        &[
            ("published", attacked.published.to_string()),
            ("refused", attacked.refused.to_string()),
            ("unanswered", attacked.unanswered.to_string()),
            ("not delivered", attacked.undelivered.to_string()),
            ("disconnected", attacked.disconnected.to_string()),
        ],
    );
    let [quiet, attacked] = [quiet, attacked].map(|outcome| honest::percentiles(&outcome.late)[1]);
    line("", &[("the load's own timer late, p99", format!("{quiet:.1} -> {attacked:.1} ms"))]);
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Looks at the memory of a relay again and again.
struct HighestMemory<'a> {
    relay: &'a RelayProcess,
    highest: std::cell::Cell<u64>,
}

const fn highest_memory(relay: &RelayProcess) -> HighestMemory<'_> {
    HighestMemory { relay, highest: std::cell::Cell::new(0) }
}

impl HighestMemory<'_> {
    async fn run(&self) -> std::convert::Infallible {
        loop {
            self.highest.set(self.highest.get().max(self.relay.resident()));
            tokio::time::sleep(LOOK).await;
        }
    }

    const fn highest(&self) -> u64 {
        self.highest.get()
    }
}

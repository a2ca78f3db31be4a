//! Program that runs one of each engine, for all tests of a run.
//!
//! ```text
//! rnostr-test-engines             starts the engines, prints a variable for each and RNOSTR_TEST_ENGINES,
//!                                 and ends the engines when its standard input closes
//! rnostr-test-engines --missing   prints the packages that the engines need and that are not installed, one a line
//! ```

use std::{io::Read as _, process::ExitCode, thread, time::Instant};

use rnostr_test_services::{Faketime, FirestoreEmulator, Options, Postgres, Prometheus, Redis, require};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve(),
        ["--missing"] => {
            let missing = [
                Postgres::missing_packages(),
                Redis::missing_packages(),
                FirestoreEmulator::missing_packages(),
                Faketime::missing_packages(),
                Prometheus::missing_packages(),
            ];
            for package in missing.concat() {
                println!("{package}");
            }
        }
        _ => {
            eprintln!("usage: rnostr-test-engines [--missing]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Starts the engines and prints their variables. The last line, `RNOSTR_TEST_ENGINES` with this process's id, says
/// that all other lines have been printed.
fn serve() {
    // If a missing engine fails the run, it does so before any engine starts.
    let (postgres, redis) = (require(Postgres::available()), require(Redis::available()));
    let emulator = require(FirestoreEmulator::available());
    let postgres = postgres.map(|()| thread::spawn(|| timed("PostgreSQL", || Postgres::start(Options::fast()))));
    let emulator = emulator.map(|()| thread::spawn(|| timed("the Firestore emulator", FirestoreEmulator::start)));
    let redis = redis.map(|()| timed("Redis", Redis::start));
    let postgres = postgres.map(|starting| starting.join().expect("PostgreSQL starts"));
    let emulator = emulator.map(|starting| starting.join().expect("the emulator starts"));
    let lines = [
        ("POSTGRES", postgres.as_ref().map(|postgres| postgres.url("postgres"))),
        ("REDIS", redis.as_ref().map(Redis::url)),
        ("FIRESTORE", emulator.as_ref().map(FirestoreEmulator::host)),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            println!("RNOSTR_TEST_{name}={value}");
        }
    }
    println!("RNOSTR_TEST_ENGINES={}", std::process::id());
    // The caller writes nothing; standard input closes when the caller has ended.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn timed<T>(name: &str, start: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let engine = start();
    eprintln!("{name} serves after {} ms", began.elapsed().as_millis());
    engine
}

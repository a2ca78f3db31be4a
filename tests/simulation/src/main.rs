//! Whole relays on one thread by a set clock, with random clients and faults, held against a small model.
//!
//! Run `rnostr-simulation --help` for what it can be asked to do.
#![allow(unreachable_pub, reason = "parts are public to the other parts of this program")]

mod chance;
mod check;
mod client;
mod event;
mod log;
mod model;
#[cfg(feature = "mutations")]
mod mutations;
mod net;
mod options;
mod outcome;
mod plan;
mod record;
mod run;
mod seam;
mod shrink;
mod store;
mod sweep;
mod world;

use std::process::ExitCode;

use self::options::{Options, Task};

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    match options.task {
        Task::One => run::one(&options),
        Task::Sweep { count } => sweep::all(&options, count),
        Task::Repeat => sweep::repeat(&options),
        Task::Shrink => shrink::story(&options),
        #[cfg(feature = "mutations")]
        Task::Mutations { count } => mutations::all(&options, count),
    }
}

//! The end of a process that started engines: no process and no folder is left.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use rnostr_test_services::{FirestoreEmulator, Postgres, Redis, require};

use crate::support::{Wire, all_end, descendants, folders};

/// The program that starts one of each engine, and the variables that it has printed.
struct Engines {
    program: Child,
    variables: BTreeMap<String, String>,
}

impl Engines {
    fn start() -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_rnostr-test-engines"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut variables = BTreeMap::new();
        for line in BufReader::new(program.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let (name, value) = line.split_once('=').unwrap();
            variables.insert(name.to_owned(), value.to_owned());
            if name == "RNOSTR_TEST_ENGINES" {
                break;
            }
        }
        Self { program, variables }
    }
}

#[test]
fn nothing_is_left_when_the_parent_is_killed() {
    nothing_is_left_after(|mut program| {
        program.kill().unwrap();
        program.wait().unwrap();
    });
}

#[test]
fn nothing_is_left_when_standard_input_closes() {
    nothing_is_left_after(|mut program| {
        drop(program.stdin.take());
        assert!(program.wait().unwrap().success());
    });
}

fn nothing_is_left_after(end: impl FnOnce(Child)) {
    let all = [Postgres::available(), Redis::available(), FirestoreEmulator::available()];
    let Some(_) = require(all.into_iter().collect::<Result<Vec<()>, _>>()) else { return };
    let engines = Engines::start();
    let names: Vec<_> = engines.variables.keys().map(String::as_str).collect();
    let four = ["RNOSTR_TEST_ENGINES", "RNOSTR_TEST_FIRESTORE", "RNOSTR_TEST_POSTGRES", "RNOSTR_TEST_REDIS"];
    assert_eq!(names, four);
    let address = engines.variables["RNOSTR_TEST_REDIS"].trim_start_matches("redis://").trim_end_matches('/');
    assert_eq!(Wire::connect(address).unwrap().ask("PING").unwrap(), "+PONG");
    assert_eq!(engines.variables["RNOSTR_TEST_ENGINES"], engines.program.id().to_string());

    let all = descendants(engines.program.id());
    assert!(all.len() > 10, "three engines, their guards and the server's processes: {all:?}");
    let folders = folders(&all);
    assert_eq!(folders.len(), 3, "{folders:?}");
    end(engines.program);
    all_end(&all);
    assert!(Wire::connect(address).is_err());
    assert!(!folders.iter().any(|folder| folder.exists()), "{folders:?} are gone");
}

#[test]
fn a_missing_engine_is_named_by_its_package() {
    let program = env!("CARGO_BIN_EXE_rnostr-test-engines");
    // The program looks for Redis in PATH alone.
    let output = Command::new(program).arg("--missing").env("PATH", "/nowhere").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().lines().any(|package| package == "redis-server"));

    let mut command = Command::new(program);
    command.env("PATH", "/nowhere").env("CI", "true").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(!output.status.success(), "on CI a missing engine fails the run");
    assert!(String::from_utf8(output.stderr).unwrap().contains("install the package"));
}

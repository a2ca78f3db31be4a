//! Runner of the binary.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{PoisonError, RwLock},
};

/// Lock that keeps processes from being started while a store is open in this process. A new process inherits the open
/// files of its parent for a moment, and with them the lock of the store.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts processes while no store is open in this one.
pub(crate) fn starting<T>(start: impl FnOnce() -> T) -> T {
    let _alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// Opens a store in this process and closes it.
pub(crate) fn with_store<T>(work: impl FnOnce() -> T) -> T {
    let _together = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Starts a command.
pub(crate) fn spawn(command: &mut Command) -> Child {
    starting(|| command.spawn()).expect("it is run")
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    Ran::of(child.wait_with_output().expect("it ends"))
}

/// Result of a run.
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts success and returns standard output.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Asserts failure with one line of error, and returns standard error.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        let errors = self.err.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "there must be one line of error: {}", self.err);
        self.err
    }
}

/// `rnostr` with these arguments in a directory, without environment variables that could configure it. The long parts
/// of test.sh name a binary of the release profile in `RNOSTR_TEST_BINARY`.
pub(crate) fn command(directory: &Path, words: &[&str]) -> Command {
    let binary = std::env::var_os("RNOSTR_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_rnostr").into());
    let mut command = Command::new(binary);
    command.current_dir(directory).args(words).env_clear().stdin(Stdio::null());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A number from a variable of the environment, by which test.sh makes a test longer or stricter.
pub(crate) fn number(variable: &str, else_number: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(else_number)
}

/// Runs `rnostr` to its end.
pub(crate) fn rnostr(directory: &Path, words: &[&str]) -> Ran {
    run(&mut command(directory, words))
}

/// Runs `rnostr` with a file as its standard input.
pub(crate) fn rnostr_reading(directory: &Path, words: &[&str], input: &Path) -> Ran {
    let input = std::fs::File::open(input).expect("the file is there");
    run(command(directory, words).stdin(input))
}

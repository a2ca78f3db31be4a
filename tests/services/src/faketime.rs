//! Debian's faketime, which starts a program on a machine whose clock seems wrong.

use std::path::Path;

use crate::programs;

const PROGRAM: &str = "faketime";
const PACKAGE: &str = "faketime";

/// The program that shifts the clock of the program that it starts.
#[derive(Debug)]
pub struct Faketime;

impl Faketime {
    /// Checks that the program is installed.
    ///
    /// # Errors
    /// The package that installs it.
    pub fn available() -> Result<(), String> {
        let found = programs::in_path(PROGRAM).map(drop);
        found.ok_or_else(|| format!("{PROGRAM} is not installed: install the package {PACKAGE}"))
    }

    /// The packages to install first.
    pub fn missing_packages() -> Vec<&'static str> {
        if Self::available().is_ok() { Vec::new() } else { vec![PACKAGE] }
    }

    /// The words before a command that make its clock as wrong as `file` says, now and later. They become the command:
    /// the package's own program stays its parent, and would leave it behind when it is killed.
    pub fn words(file: &Path) -> Vec<String> {
        // The loader puts the machine's directory of libraries in the place of `$LIB`.
        let library = "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1".to_owned();
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", file.display());
        // A machine's clock that is set leaves the monotonic clock as it is.
        let rest = ["FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"];
        ["env".to_owned(), library, file].into_iter().chain(rest.map(str::to_owned)).collect()
    }

    /// Sets the clock of the programs that [`Faketime::words`] of `file` starts: `secs` ahead, or behind if negative.
    /// Running programs follow within a second.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(file: &Path, secs: i64) {
        // A reader never finds half of it.
        let written = file.with_extension("new");
        std::fs::write(&written, format!("{secs:+}s\n")).expect("the file is written");
        std::fs::rename(&written, file).expect("the file is put in its place");
    }
}

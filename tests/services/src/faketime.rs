//! Debian's faketime, which starts a program on a machine whose clock seems wrong.

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

    /// The words before a command that make its clock `secs` ahead, or behind if negative.
    pub fn words(secs: i64) -> [String; 3] {
        [PROGRAM.to_owned(), "-f".to_owned(), format!("{secs:+}s")]
    }
}

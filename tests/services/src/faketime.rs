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

    /// The words before a command that make its clock `secs` ahead, or behind if negative. They become the command:
    /// the package's own program stays its parent, and would leave it behind when it is killed.
    pub fn words(secs: i64) -> [String; 3] {
        // The loader puts the machine's directory of libraries in the place of `$LIB`.
        let library = "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1";
        ["env".to_owned(), library.to_owned(), format!("FAKETIME={secs:+}s")]
    }
}

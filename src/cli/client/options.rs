//! The options by which a command finds its relay and its key.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use nostr_protocol::{PublicKey, sign::SecretKey};

use super::super::address::Address;

/// The variable that holds the secret key.
const KEY_VARIABLE: &str = "RNOSTR_KEY";
/// Most bytes of a key file: a key pair as `rnostr keygen --out` writes it, and room for comments.
const KEY_FILE_BYTES_MAX: u64 = 4_096;

/// A relay, and the key of the person who asks.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Connection {
    /// The relay's WebSocket URL, by the name that the relay knows: wss://relay.example.com
    #[arg(long, value_name = "URL")]
    relay: String,
    /// The file with your secret key: 64 hex digits, nsec1…, or the file of `rnostr keygen --out`; without the option
    /// the variable RNOSTR_KEY holds the key, if there is one
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Connection {
    /// The relay.
    ///
    /// # Errors
    /// The option holds no URL of a relay.
    pub(in crate::cli) fn relay(&self) -> Result<Address, String> {
        Address::named(&self.relay).map_err(|fault| format!("--relay: {fault}"))
    }

    /// The key that the command proves to the relay; `None` where none is given.
    ///
    /// # Errors
    /// The file or the variable holds no key. No text repeats what it holds.
    pub(in crate::cli) fn key(&self) -> Result<Option<SecretKey>, String> {
        if let Some(path) = &self.key_file {
            return read(path).map(Some);
        }
        let Some(text) = std::env::var_os(KEY_VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
        let key = text.to_str().and_then(|text| SecretKey::from_hex_or_nsec(text.trim()));
        key.map(Some).ok_or_else(|| format!("{KEY_VARIABLE} holds no secret key; write 64 hex digits or nsec1…"))
    }

    /// The key, for a command that signs.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::cli) fn signing_key(&self) -> Result<SecretKey, String> {
        self.key()?.ok_or_else(|| {
            format!(
                "this needs your key: name its file by --key-file, or set {KEY_VARIABLE}; `rnostr keygen` makes one"
            )
        })
    }
}

fn read(path: &Path) -> Result<SecretKey, String> {
    if path.to_str().is_some_and(|text| SecretKey::from_hex_or_nsec(text).is_some()) {
        return Err("--key-file takes the name of a file; a key in its place is seen by everyone on this machine, so \
                    change it"
            .to_owned());
    }
    let failed = |fault: &dyn std::fmt::Display| format!("--key-file {}: {fault}", path.display());
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut text));
    read.map_err(|error| failed(&error))?;
    let text = std::str::from_utf8(&text).ok().filter(|text| text.len() as u64 <= KEY_FILE_BYTES_MAX);
    text.and_then(SecretKey::from_file_text)
        .ok_or_else(|| failed(&"no secret key; write 64 hex digits or nsec1…, as `rnostr keygen --out` does"))
}

/// Reads the key of a person.
///
/// # Errors
/// The text is none. A secret key in its place is not repeated.
pub(in crate::cli) fn public_key(name: &str, text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex_or_npub(text).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";

    #[test]
    fn a_key_file_is_read_and_never_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.key");
        let with = |text: &str| {
            std::fs::write(&path, text).expect("it is written");
            read(&path)
        };
        assert_eq!(
            with(&format!("public_key  aa\nsecret_key  {HEX}\n")).map(Some),
            Ok(SecretKey::from_hex_or_nsec(HEX))
        );
        for text in ["", &HEX[1..], &"x".repeat(5_000), &format!("{HEX}{}", " ".repeat(5_000))] {
            let fault = with(text).expect_err("no key");
            assert!(fault.contains("no secret key") && !fault.contains(&HEX[1..]), "{fault}");
        }
        let fault = read(Path::new(HEX)).expect_err("no file");
        assert!(fault.contains("takes the name of a file") && !fault.contains(HEX), "{fault}");
        assert!(read(&directory.path().join("none")).expect_err("no file").contains("No such file"));
    }
}

//! The operator's key for the other relay.

use std::{fs, path::Path};

use nostr_protocol::sign::SecretKey;

/// The variable that holds the key, where no file is named.
const KEY_VARIABLE: &str = "RNOSTR_KEY";
/// Most bytes of the file: a key pair as `rnostr keygen --out` writes it, and room for comments.
const FILE_BYTES_MAX: u64 = 4_096;

/// The key of the file or of the variable; `None` where neither is given.
///
/// # Errors
/// In words for the operator, without the text that is no key.
pub(super) fn of(file: Option<&Path>) -> Result<Option<SecretKey>, String> {
    let (text, place) = match (file, std::env::var(KEY_VARIABLE)) {
        (Some(path), _) => {
            let failed = |fault: &str| format!("--key-file {}: {fault}", path.display());
            let metadata = fs::metadata(path).map_err(|error| failed(&error.to_string()))?;
            if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
                return Err(failed("no file with a key; write 64 hex digits or nsec1… into it"));
            }
            (fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?, failed(""))
        }
        (None, Ok(text)) => (text, format!("{KEY_VARIABLE}: ")),
        (None, Err(_)) => return Ok(None),
    };
    let key = SecretKey::from_file_text(&text);
    key.map(Some).ok_or_else(|| format!("{place}no secret key; write 64 hex digits or nsec1…"))
}

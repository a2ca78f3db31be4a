//! The relay's own key, from the file or the variable of the configuration.

use std::{fs, path::Path};

use nostr_protocol::sign::SecretKey;

use crate::config::Config;

/// Most bytes of the file: a key pair as `rnostr keygen --out` writes it, and room for comments.
const FILE_BYTES_MAX: u64 = 4_096;

/// The key that signs; `None` where the configuration names none.
///
/// # Errors
/// If the file cannot be read or holds no key, or if `system_pubkey` is not its public half. The text names no secret.
pub(crate) fn of(config: &Config) -> Result<Option<SecretKey>, String> {
    let gateway = &config.mls_gateway;
    let (key, source) = match (&gateway.system_key, &gateway.system_key_file) {
        (Some(_), Some(_)) => {
            return Err("extensions.mls_gateway.system_key_file: RNOSTR_SYSTEM_KEY is set too; keep one".to_owned());
        }
        (Some(key), None) => (key.clone(), "RNOSTR_SYSTEM_KEY"),
        (None, Some(path)) => (read(path)?, "extensions.mls_gateway.system_key_file"),
        (None, None) => return Ok(None),
    };
    let public = key.public();
    match gateway.system_pubkey {
        Some(configured) if configured == public => Ok(Some(key)),
        Some(_) => Err(format!("{source}: this key is not that of system_pubkey; write system_pubkey = \"{public}\"")),
        None => Err(format!("{source}: system_pubkey is not set; write system_pubkey = \"{public}\"")),
    }
}

fn read(path: &Path) -> Result<SecretKey, String> {
    let failed = |what: &str| format!("extensions.mls_gateway.system_key_file {}: {what}", path.display());
    let metadata = fs::metadata(path).map_err(|error| failed(&error.to_string()))?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(failed("no file with a key; write 64 hex digits or nsec1… into it"));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
    SecretKey::from_file_text(&text)
        .ok_or_else(|| failed("no secret key; write 64 hex digits or nsec1…, as rnostr keygen prints them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";
    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";

    fn configured(text: Option<&str>) -> (Config, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.mls_gateway.system_pubkey = SecretKey::from_hex_or_nsec(HEX).map(|key| key.public());
        if let Some(text) = text {
            let path = directory.path().join("system.key");
            fs::write(&path, text).expect("a file");
            config.mls_gateway.system_key_file = Some(path);
        }
        (config, directory)
    }

    #[test]
    fn a_key_is_read_in_each_spelling() {
        let expected = SecretKey::from_hex_or_nsec(HEX);
        let generated = format!("public_key  aa\nnpub        bb\nsecret_key  {HEX}\nnsec        {NSEC}\n");
        for text in [HEX, NSEC, &format!("{NSEC}\n"), &generated] {
            let (config, _directory) = configured(Some(text));
            assert_eq!(of(&config), Ok(expected.clone()), "{text}");
        }
        let (config, _directory) = configured(None);
        assert_eq!(of(&config), Ok(None));
    }

    #[test]
    fn a_key_that_does_not_fit_is_refused_and_not_shown() {
        for text in ["", "x", &HEX[1..], &"x".repeat(9_000)] {
            let (config, _directory) = configured(Some(text));
            let refused = of(&config).expect_err("no key");
            assert!(text.len() < 2 || !refused.contains(text), "{refused}");
        }
        let (mut config, _directory) = configured(Some(HEX));
        config.mls_gateway.system_pubkey = None;
        assert!(of(&config).is_err_and(|refused| refused.contains("system_pubkey") && !refused.contains(HEX)));
        config.mls_gateway.system_pubkey = Some(nostr_protocol::PublicKey::from_bytes([7; 32]));
        assert!(of(&config).is_err_and(|refused| refused.contains("is not that of system_pubkey")));
        config.mls_gateway.system_key = SecretKey::from_hex_or_nsec(NSEC);
        assert!(of(&config).is_err_and(|refused| refused.contains("keep one")));
    }
}

//! `rnostr keygen`: makes a key pair for an operator, an admin or the relay itself.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nostr_protocol::{PublicKey, hex, key::to_bech32};
use secp256k1::{Keypair, rand};

use super::moving::private;

/// Make a key pair: hex, npub and nsec
#[derive(Debug, clap::Args)]
pub(super) struct Keygen {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write the pair to a new file that only its owner may read, and print the public key alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Keygen {
    pub(super) fn run(self) -> Result<(), String> {
        // The operating system seeds the generator.
        let pair = Pair::of(&Keypair::new(&mut rand::rng()));
        let text = if self.json { pair.json() } else { pair.lines() };
        let shown = match &self.out {
            None => text,
            Some(path) => {
                write_new(path, &text)?;
                let public = &pair.spellings()[..2];
                public.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect()
            }
        };
        io::stdout().lock().write_all(shown.as_bytes()).map_err(|error| format!("cannot write: {error}"))
    }
}

/// Writes a file that was not there, for its owner alone.
fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("--out {}: exists already, maybe with a key; use another name", path.display())
        }
        _ => format!("--out {}: {error}", path.display()),
    };
    let mut file = private().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

struct Pair {
    public: PublicKey,
    secret: [u8; 32],
}

impl Pair {
    fn of(keys: &Keypair) -> Self {
        let (public, _) = keys.x_only_public_key();
        Self { public: PublicKey::from_bytes(public.to_byte_array()), secret: keys.to_secret_bytes() }
    }

    fn spellings(&self) -> [(&'static str, String); 4] {
        [
            ("public_key", self.public.to_hex()),
            ("npub", self.public.to_npub()),
            ("secret_key", hex::to_hex(&self.secret)),
            ("nsec", to_bech32("nsec", &self.secret)),
        ]
    }

    fn lines(&self) -> String {
        let lines = self.spellings().map(|(name, value)| format!("{name:<11} {value}\n"));
        format!("{}Keep secret_key and nsec to yourself; they are the same key.\n", lines.concat())
    }

    /// Writes the pair as JSON. Hex and bech32 need no escapes.
    fn json(&self) -> String {
        let members = self.spellings().map(|(name, value)| format!("\"{name}\":\"{value}\""));
        format!("{{{}}}\n", members.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys are the examples of NIP-19.
    #[test]
    fn the_spellings_are_those_of_nip_19() {
        let secret = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";
        let secret = hex::parse_lower(secret.as_bytes()).expect("hex");
        let pair = Pair::of(&Keypair::from_secret_bytes(secret).expect("a secret key"));
        let values = pair.spellings().map(|(_, value)| value);
        assert_eq!(values[0], "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e");
        assert_eq!(values[1], "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg");
        assert_eq!(values[3], "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5");
        assert_eq!(PublicKey::from_hex_or_npub(&values[1]), Ok(pair.public));
        assert!(pair.json().starts_with("{\"public_key\":\"7e7e") && pair.json().ends_with("\"}\n"));
    }
}

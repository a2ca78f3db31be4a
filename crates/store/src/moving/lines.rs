//! Reader of a file's lines in bounded memory, and the running checksum of the lines.

use std::io::{self, BufRead, BufReader, Read};

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use super::key::FileKey;

/// Most bytes of one line. The longest lines are far shorter: groups of 10,000 members, and the longest events that a
/// relay takes.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Size of the read buffer.
const BUFFER_BYTES: usize = 256 << 10;

/// Number, length and checksum of the lines so far.
#[derive(Clone)]
pub(super) struct Count {
    running: Running,
    /// Number of lines.
    pub(super) lines: u64,
    /// Number of bytes, line feeds included.
    pub(super) bytes: u64,
}

/// The checksum of the lines so far.
#[derive(Clone)]
enum Running {
    /// SHA-256, which shows accidents alone: anyone can make it anew.
    Hash(Sha256),
    /// HMAC-SHA-256 under the export's key.
    Code(Box<Hmac<Sha256>>),
}

impl Count {
    /// No lines yet. The checksum is made under `key`, if there is one.
    pub(super) fn new(key: Option<&FileKey>) -> Self {
        let running = key.map_or_else(|| Running::Hash(Sha256::new()), |key| Running::Code(Box::new(key.running())));
        Self { running, lines: 0, bytes: 0 }
    }

    /// Adds `text`, which holds `lines` whole lines.
    pub(super) fn add(&mut self, text: &[u8], lines: u64) {
        match &mut self.running {
            Running::Hash(hash) => hash.update(text),
            Running::Code(code) => code.update(text),
        }
        self.lines += lines;
        self.bytes += text.len() as u64;
    }

    pub(super) fn checksum(&self) -> [u8; 32] {
        match &self.running {
            Running::Hash(hash) => hash.clone().finalize().into(),
            Running::Code(code) => (**code).clone().finalize().into_bytes().into(),
        }
    }
}

/// A line as it stands in the file.
pub(super) struct Raw {
    /// The line with its line feed, if it has one.
    pub(super) text: Vec<u8>,
}

impl Raw {
    /// Whether the line has its line feed.
    pub(super) fn is_whole(&self) -> bool {
        self.text.ends_with(b"\n")
    }

    /// The line without its line feed.
    pub(super) fn content(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        // Other programs may have added carriage returns to the file.
        text.strip_suffix(b"\r").unwrap_or(text)
    }
}

/// Reader of lines.
pub(super) struct Lines<R> {
    input: BufReader<R>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(BUFFER_BYTES, input) }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// Errors of the input, and `InvalidData` for a line over [`LINE_BYTES_MAX`].
    pub(super) fn next(&mut self) -> io::Result<Option<Raw>> {
        let mut text = Vec::new();
        let read = self.input.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut text)?;
        let raw = Raw { text };
        if read == LINE_BYTES_MAX && !raw.is_whole() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long for an export"));
        }
        Ok((read > 0).then_some(raw))
    }
}

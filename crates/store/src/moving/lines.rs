//! Reader of a file's lines in bounded memory, and the running hash of the lines.

use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};

/// Most bytes of one line. The longest lines are far shorter: groups of 10,000 members, and the longest events that a
/// relay takes.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Size of the read buffer.
const BUFFER_BYTES: usize = 256 << 10;

/// Number, length and hash of the lines so far.
#[derive(Clone)]
pub(super) struct Count {
    hash: Sha256,
    /// Number of lines.
    pub(super) lines: u64,
    /// Number of bytes, line feeds included.
    pub(super) bytes: u64,
}

impl Default for Count {
    fn default() -> Self {
        Self { hash: Sha256::new(), lines: 0, bytes: 0 }
    }
}

impl Count {
    /// Adds `text`, which holds `lines` whole lines.
    pub(super) fn add(&mut self, text: &[u8], lines: u64) {
        self.hash.update(text);
        self.lines += lines;
        self.bytes += text.len() as u64;
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
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

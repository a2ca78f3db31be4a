//! A file of lines, read in bounded memory, and its running hash.

use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};

/// Most bytes of one line: far above the longest, a group of 10,000 members or an event as long as a relay may take.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// What is known of the lines up to some place.
#[derive(Clone)]
pub(super) struct Count {
    hash: Sha256,
    /// How many.
    pub(super) lines: u64,
    /// How many bytes, with the ends of the lines.
    pub(super) bytes: u64,
}

impl Default for Count {
    fn default() -> Self {
        Self { hash: Sha256::new(), lines: 0, bytes: 0 }
    }
}

impl Count {
    /// Of bytes that end with a line.
    pub(super) fn add(&mut self, text: &[u8], lines: u64) {
        self.hash.update(text);
        self.lines += lines;
        self.bytes += text.len() as u64;
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

/// A line as it lies in the file.
pub(super) struct Raw {
    /// With the end of the line, where it has one.
    pub(super) text: Vec<u8>,
}

impl Raw {
    /// Whether its end is there.
    pub(super) fn is_whole(&self) -> bool {
        self.text.ends_with(b"\n")
    }

    /// Without its end.
    pub(super) fn content(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        // A file that went through other hands may have them.
        text.strip_suffix(b"\r").unwrap_or(text)
    }
}

/// See the module.
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
    /// What reading gives, and a line over [`LINE_BYTES_MAX`].
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

//! A consistent copy of a store that the relay may be writing.
//!
//! LMDB lets other processes read beside the one that writes, each in a snapshot. The copy holds every transaction that
//! was committed before it began, and none in part. It leaves out free pages, so deleted events are not in it.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use heed::{CompactionOption, Env, WithTls};
use sha2::{Digest as _, Sha256};

use super::super::env::open_beside;
use crate::OpenError;

/// Bytes that are hashed at a time.
const HASHED_BYTES_AIM: usize = 1 << 20;

/// A SHA-256.
pub type Digest = [u8; 32];

/// A store that is read beside the relay.
#[derive(Debug)]
pub struct Beside(pub(super) Env<WithTls>);

impl Beside {
    /// Opens the store in `directory` for reading.
    ///
    /// # Errors
    /// [`OpenError`]: there is none, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        if !directory.join(super::DATA_FILE).exists() {
            return Err(OpenError::Refused(format!(
                "there is no store in {}; is data.path right?",
                directory.display()
            )));
        }
        open_beside(directory).map(Self)
    }

    /// Writes a copy of everything that was committed before the call to `file`, which is empty.
    ///
    /// # Errors
    /// The file cannot be written, or the store has a page that is neither used nor free.
    pub fn copy_to(&self, file: &mut File) -> Result<(), OpenError> {
        let refused = |error: String| OpenError::Refused(format!("the store cannot be copied: {error}"));
        self.0.copy_to_file(file, CompactionOption::Enabled).map_err(|error| refused(error.to_string()))?;
        file.sync_all().map_err(|error| refused(error.to_string()))
    }
}

/// Hashes what `from` gives, writes it to `to`, and calls `at` with the bytes so far.
///
/// # Errors
/// Reading or writing fails.
pub fn hash(from: &mut dyn Read, to: &mut dyn Write, at: &mut dyn FnMut(u64)) -> io::Result<Digest> {
    let (mut hasher, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; HASHED_BYTES_AIM]);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        bytes += read as u64;
        at(bytes);
    }
}

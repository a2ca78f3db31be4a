//! Tools for the operator of an embedded store: a copy of a store in use, its restoration, a check and a repair.
//!
//! Nothing here runs in the relay. A copy reads the store beside the relay, as another process; everything that writes
//! holds the directory's lock, which a running relay has.

mod check;
mod copy;
mod derived;
mod faults;
mod node;
mod pages;
mod rebuild;
mod reconcile;
mod replace;
mod sizes;

pub use self::{
    check::{Checked, Depth, check},
    copy::{Beside, Digest, hash},
    faults::Faults,
    rebuild::Rebuilt,
    replace::{Compacted, check_store, compact, repair, restore},
    sizes::Sizes,
};

/// The name of the data file in a store's directory.
pub const DATA_FILE: &str = "data.mdb";

/// A row: its table, its key and its value.
#[cfg(feature = "testing")]
pub type Row = (String, Vec<u8>, Vec<u8>);

/// Every row of the data file at `path`, with its table and its key.
///
/// # Errors
/// The file cannot be read, or its first pages cannot.
#[cfg(feature = "testing")]
pub fn rows(path: &std::path::Path) -> Result<Vec<Row>, crate::OpenError> {
    let refused = crate::OpenError::Refused;
    let mut pages = pages::Pages::open(path).map_err(|error| refused(error.to_string()))?.map_err(refused)?;
    let mut rows = Vec::new();
    let mut row = |table: &str, key: &[u8], value: &[u8]| rows.push((table.to_owned(), key.to_vec(), value.to_vec()));
    pages.walk(&mut row, &mut |_| {}).map_err(|error| refused(error.to_string()))?;
    Ok(rows)
}

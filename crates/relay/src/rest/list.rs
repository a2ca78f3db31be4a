//! Pages of lists: their limits, their ends, and the places of cursors.

use nostr_protocol::EventId;
use nostr_store::Cost;

use super::Problem;
use crate::app::App;

/// The entries of a page, one more than the client gets: it tells whether there are more.
pub(crate) struct List<T> {
    limit: usize,
    entries: Vec<T>,
}

impl<T> List<T> {
    /// An empty page of at most `limit` entries.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, entries: Vec::new() }
    }

    /// Whether no further entry would change the page.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() > self.limit
    }

    pub(crate) fn push(&mut self, entry: T) {
        self.entries.push(entry);
    }

    /// The page, and whether there are more entries.
    pub(crate) fn end(mut self) -> (Vec<T>, bool) {
        let has_more = self.is_full();
        self.entries.truncate(self.limit);
        (self.entries, has_more)
    }
}

/// The number of entries that the client asks for, at most `most`.
///
/// # Errors
/// 400 for 0.
pub(super) fn limit(asked: Option<usize>, most: usize) -> Result<usize, Problem> {
    match asked {
        Some(0) => Err(Problem::bad_parameter("limit is at least 1")),
        Some(limit) => Ok(limit.min(most)),
        None => Ok(most),
    }
}

/// The cost of so many things of `units`, each of which is a document where documents are counted.
pub(crate) fn cost(app: &App, units: u64, count: usize) -> Cost {
    let count = count as u64;
    Cost { units: units * count, documents: if app.store.documents_read().is_some() { count } else { 0 } }
}

/// The place of an event in NIP-01's order.
pub(super) fn place(created_at: u64, id: EventId) -> Vec<u8> {
    [&created_at.to_be_bytes()[..], id.as_bytes()].concat()
}

/// The inverse of [`place`].
///
/// # Errors
/// 400 for bytes that are none.
pub(super) fn position(place: &[u8]) -> Result<(u64, EventId), Problem> {
    let (at, id) = place.split_first_chunk::<8>().ok_or_else(of_another_release)?;
    Ok((u64::from_be_bytes(*at), EventId::from_bytes(fixed(id)?)))
}

/// So many bytes.
///
/// # Errors
/// 400 for another number of them.
pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Problem> {
    bytes.try_into().map_err(|_| of_another_release())
}

/// A place that is a text.
///
/// # Errors
/// 400 for bytes that are none.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|_| of_another_release())
}

/// A cursor that this relay made, whose place it cannot read.
fn of_another_release() -> Problem {
    super::cursor::gone("the cursor is of another release of this relay")
}

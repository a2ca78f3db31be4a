//! Times of the service as places in the log.
//!
//! All documents of one Commit have its commit time as their update time, in microseconds. A read sees all commits up
//! to its read time and none after it (`CommitResponse.commit_time`, `RunQueryResponse.read_time` of
//! google.firestore.v1). So the commit time orders the log, and a read time is a place in it.

use gcloud_sdk::prost_types::Timestamp;

use crate::Cursor;

/// Bits of a cursor below the time: the places within one microsecond.
const PLACE_BITS: u32 = 13;
/// Places within one microsecond.
pub(crate) const PLACES: u64 = 1 << PLACE_BITS;
/// Microseconds in a second.
pub(crate) const SEC: u64 = 1_000_000;

/// Microseconds since 1970.
pub(crate) type Micros = u64;

/// The cursor of a place within the commit of `time`.
pub(crate) const fn cursor(time: Micros, place: u64) -> Cursor {
    time << PLACE_BITS | place
}

/// The last cursor of a time: a read at that time knows everything up to here.
pub(crate) const fn through(time: Micros) -> Cursor {
    cursor(time, PLACES - 1)
}

/// The time of the commit at `cursor`.
pub(crate) const fn time_of(cursor: Cursor) -> Micros {
    cursor >> PLACE_BITS
}

/// Microseconds of a time of the service.
pub(crate) fn micros(time: Timestamp) -> Micros {
    let (secs, nanos) = (u64::try_from(time.seconds).unwrap_or(0), u64::try_from(time.nanos).unwrap_or(0));
    secs.saturating_mul(SEC).saturating_add(nanos / 1_000)
}

/// A time in the form of the service.
pub(crate) fn timestamp(time: Micros) -> Timestamp {
    let nanos = i32::try_from(time % SEC * 1_000).unwrap_or(0);
    Timestamp { seconds: i64::try_from(time / SEC).unwrap_or(i64::MAX), nanos }
}

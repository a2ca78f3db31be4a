//! Options of the store.

use crate::OpenError;

/// The default prefix of collections.
pub const PREFIX: &str = "rnostr";
/// Most writes of one Commit.
pub const BATCH_SIZE_MAX: usize = 500;
/// Most entries that one count for the store's sizes looks at. The service charges a read for each 1,000.
const STATS_ENTRIES_MAX: u64 = 1_000_000;
/// Options of [`super::Firestore::open`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The Google Cloud project.
    pub project_id: String,
    /// The database in it.
    pub database_id: String,
    /// The prefix of all collections' names: letters, digits and hyphens.
    pub prefix: String,
    /// Most writes of one Commit, 1 to [`BATCH_SIZE_MAX`]; an event with all its effects is never divided.
    pub batch_size: usize,
    /// `host:port` of an emulator. The default is the environment's `FIRESTORE_EMULATOR_HOST`, and without that the
    /// service, with credentials from where Google's libraries find them.
    pub emulator_host: Option<String>,
    /// Greatest age, in seconds, of the answer of [`crate::Store::stats`]. The service counts by reading its indexes,
    /// and charges for it.
    pub stats_secs: u64,
    /// Most events, and most groups, that are counted for [`crate::Store::stats`]. A store that has more tells this
    /// number.
    pub stats_entries_max: u64,
    /// Time, in seconds, between two looks whether the database is still the one that was opened. Each reads one
    /// document.
    pub layout_secs: u64,
    /// Most documents a minute that are read for clients; 0 for any number. The documents that saves, admission and
    /// followers read are counted as well, and never refused.
    pub reads_per_minute_max: u32,
}

impl Options {
    /// Options for the default database of a project.
    #[must_use]
    pub fn new(project_id: &str) -> Self {
        Self {
            project_id: project_id.to_owned(),
            database_id: "(default)".to_owned(),
            prefix: PREFIX.to_owned(),
            batch_size: BATCH_SIZE_MAX,
            emulator_host: None,
            stats_secs: 300,
            stats_entries_max: STATS_ENTRIES_MAX,
            layout_secs: 10,
            reads_per_minute_max: 0,
        }
    }

    /// Refuses values that the service would not take.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        if self.project_id.is_empty() {
            return Err(OpenError::Refused(
                "Firestore needs a project: set project_id, or GOOGLE_CLOUD_PROJECT".to_owned(),
            ));
        }
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(is_name) {
            return Err(OpenError::Refused(
                "the prefix of Firestore's collections is 1 to 64 letters, digits or hyphens".to_owned(),
            ));
        }
        if !(1..=BATCH_SIZE_MAX).contains(&self.batch_size) {
            return Err(OpenError::Refused(format!("firestore_batch_size is 1 to {BATCH_SIZE_MAX}")));
        }
        Ok(())
    }
}

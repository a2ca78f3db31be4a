//! The faults that a check finds.

/// Most faults that are told one by one.
const FAULTS_MAX: usize = 100;

/// Faults in words: the first ones, and the number of all.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    told: Vec<String>,
    count: u64,
}

impl Faults {
    /// Adds a fault.
    pub(super) fn add(&mut self, fault: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < FAULTS_MAX {
            self.told.push(fault());
        }
    }

    /// Adds the faults of another check.
    pub(super) fn extend(&mut self, other: Self) {
        self.count += other.count;
        let room = FAULTS_MAX.saturating_sub(self.told.len());
        self.told.extend(other.told.into_iter().take(room));
    }

    /// The number of all faults.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first faults, each a sentence without a full stop.
    #[must_use]
    pub fn told(&self) -> &[String] {
        &self.told
    }
}

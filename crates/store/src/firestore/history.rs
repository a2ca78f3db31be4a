//! Whether the database is still the one that was opened.
//!
//! The service restores a copy into a database of its own, which needs another configuration and so another process.
//! Two ways lead to older data under a running process: an import into the same database, and an emulator that was
//! started anew. Both write the layout's document anew or leave it out, so its time of writing tells. Cursors are times
//! of the service, so no later event is missed; but cached groups may be of commits that never were.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Inner,
    wire::{
        clock::{Micros, micros},
        fail::Fail,
    },
};

/// See the module.
pub(crate) struct History {
    /// The time at which the layout's document was written.
    layout_at: Micros,
    /// The time of the last look.
    looked: Mutex<Instant>,
    is_other: AtomicBool,
}

impl History {
    pub(crate) fn new(layout_at: Micros) -> Self {
        Self { layout_at, looked: Mutex::new(Instant::now()), is_other: AtomicBool::new(false) }
    }

    /// Fails after the database was found to be another.
    pub(crate) fn is_ours(&self) -> Result<(), Fail> {
        if self.is_other.load(Ordering::Acquire) { Err(Fail::OtherHistory) } else { Ok(()) }
    }
}

impl Inner {
    /// Looks at the layout's document now and then.
    pub(crate) async fn is_same_database(&self) -> Result<(), Fail> {
        self.history.is_ours()?;
        if self.history.looked.lock().elapsed() < Duration::from_secs(self.options.layout_secs) {
            return Ok(());
        }
        let name = self.names.meta("layout");
        let got = self.client.get(vec![name.clone()], Some(&["version"])).await?;
        let written = got.get(&name).and_then(|document| document.update_time).map(micros);
        if written != Some(self.history.layout_at) {
            self.history.is_other.store(true, Ordering::Release);
            return Err(Fail::OtherHistory);
        }
        *self.history.looked.lock() = Instant::now();
        Ok(())
    }
}

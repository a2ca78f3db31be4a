//! What is the same for every engine that is started here: a folder, a port that stays its own, and a process that comes
//! and goes.

use std::{ffi::OsString, path::Path, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{port, process::Process};

/// Longest wait for an engine to be ready; after a crash it may have to recover.
const READY_SECS_MAX: u64 = 120;
/// Tries at a port that is free, for another process may take it first.
const PORTS_MAX: usize = 5;

/// How an engine is started.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// For messages.
    pub(crate) name: &'static str,
    /// The program and its words, without the port.
    pub(crate) command: Vec<OsString>,
    /// The word before the port, which ends the command.
    pub(crate) port_option: &'static str,
    /// The signal by which it ends.
    pub(crate) ending: Signal,
    /// Whether it serves, by what it does at its port or writes into its folder.
    pub(crate) is_ready: fn(&Look<'_>) -> bool,
}

/// Where to see whether an engine serves.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) pid: u32,
}

/// An engine that was started here; ended when it is dropped, and its folder removed.
#[derive(Debug)]
pub(crate) struct Engine {
    recipe: Recipe,
    process: Option<Process>,
    port: u16,
    // Dropped after the process.
    folder: TempDir,
}

impl Engine {
    /// Starts it at a free port.
    ///
    /// # Panics
    /// When it does not start, with its log.
    pub(crate) fn start(recipe: Recipe, folder: TempDir) -> Self {
        let mut engine = Self { recipe, process: None, port: 0, folder };
        let mut started = Err(String::new());
        for _ in 0..PORTS_MAX {
            engine.port = port::free();
            started = engine.run();
            if started.is_ok() {
                break;
            }
        }
        started.unwrap_or_else(|why| panic!("{} does not start: {why}", engine.recipe.name));
        engine
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `None` while it is stopped.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Ends it; returns when all its processes are gone.
    pub(crate) fn stop(&mut self) {
        // Ended as it is dropped.
        self.process = None;
    }

    /// Starts it again in the same folder and at the same port.
    ///
    /// # Panics
    /// When it does not start, with its log.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.run().unwrap_or_else(|why| panic!("{} does not start again: {why}", self.recipe.name));
    }

    /// Stops its processes where they are.
    ///
    /// # Panics
    /// When it is stopped.
    pub(crate) fn pause(&mut self) {
        self.process().pause();
    }

    /// Lets go on what was paused.
    ///
    /// # Panics
    /// When it is stopped.
    pub(crate) fn resume(&mut self) {
        self.process().resume();
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    fn run(&mut self) -> Result<(), String> {
        let Recipe { command, port_option, ending, is_ready, .. } = &self.recipe;
        let mut command = command.clone();
        command.extend([(*port_option).into(), self.port.to_string().into()]);
        let folder = self.folder.path();
        let mut process = Process::start(&command, folder, *ending);
        let look = Look { folder, port: self.port, pid: process.pid() };
        process.until(Duration::from_secs(READY_SECS_MAX), || is_ready(&look))?;
        self.process = Some(process);
        Ok(())
    }
}

//! Engine that was started by this process: a folder, a port that the engine keeps, and a process that can be stopped
//! and started again.

use std::{ffi::OsString, path::Path, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{port, process::Process};

/// Longest wait for an engine to be ready. After a crash the engine may have to recover.
const READY_SECS_MAX: u64 = 120;
/// Most ports to try, because another process may take a free port first.
const PORTS_MAX: usize = 5;

/// Recipe by which an engine is started and ended.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The engine's name in messages.
    pub(crate) name: &'static str,
    /// The program and its arguments, without the port.
    pub(crate) command: Vec<OsString>,
    /// The option for the port. Option and port end the command.
    pub(crate) port_option: &'static str,
    /// Text that the option's value has before the port.
    pub(crate) port_prefix: &'static str,
    /// The signal that ends the engine.
    pub(crate) ending: Signal,
    /// Check whether the engine serves, by its answers at its port or the files in its folder.
    pub(crate) is_ready: fn(&Look<'_>) -> bool,
}

/// Folder, port and process by which a recipe checks whether its engine serves.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) pid: u32,
}

/// An engine that was started by this process. Dropping it ends the engine and removes its folder.
#[derive(Debug)]
pub(crate) struct Engine {
    recipe: Recipe,
    process: Option<Process>,
    port: u16,
    // Fields are dropped in their order, and the process still uses the folder.
    folder: TempDir,
}

impl Engine {
    /// Starts the engine at a free port.
    ///
    /// # Panics
    /// When the engine does not start, with its log.
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

    /// The engine's process id; `None` while the engine is stopped.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Ends the engine, and returns when all its processes are gone.
    pub(crate) fn stop(&mut self) {
        // Dropping the process ends it.
        self.process = None;
    }

    /// Starts the engine again, in the same folder and at the same port.
    ///
    /// # Panics
    /// When the engine does not start, with its log.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.run().unwrap_or_else(|why| panic!("{} does not start again: {why}", self.recipe.name));
    }

    /// Suspends the engine's processes.
    ///
    /// # Panics
    /// When the engine is stopped.
    pub(crate) fn pause(&mut self) {
        self.process().pause();
    }

    /// Lets the suspended processes run again.
    ///
    /// # Panics
    /// When the engine is stopped.
    pub(crate) fn resume(&mut self) {
        self.process().resume();
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    fn run(&mut self) -> Result<(), String> {
        let Recipe { command, port_option, port_prefix, ending, is_ready, .. } = &self.recipe;
        let mut command = command.clone();
        command.extend([(*port_option).into(), format!("{port_prefix}{}", self.port).into()]);
        let folder = self.folder.path();
        let mut process = Process::start(&command, folder, *ending);
        let look = Look { folder, port: self.port, pid: process.pid() };
        process.until(Duration::from_secs(READY_SECS_MAX), || is_ready(&look))?;
        self.process = Some(process);
        Ok(())
    }
}

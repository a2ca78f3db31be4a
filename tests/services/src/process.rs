//! Process of an engine, and the guard that ends the engine when this process can no longer do so.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The guard's script. `/bin/sh` runs it in a process group of its own, so that Ctrl-C does not end it.
const GUARD: &str = include_str!("guard.sh");
/// Time between two checks while waiting.
const LOOK: Duration = Duration::from_millis(5);
/// Longest wait for an engine that was told to end.
const END_SECS_MAX: u64 = 15;
/// Most lines of a log that a message shows, from its end.
const LOG_LINES_MAX: usize = 30;

/// A running engine. Dropping it ends the engine.
#[derive(Debug)]
pub(crate) struct Process {
    guard: Child,
    /// Pipe to the guard. It closes when this process ends, and the guard then ends the engine.
    _line: ChildStdin,
    engine: Pid,
    ending: Signal,
    log: PathBuf,
}

impl Process {
    /// Runs a command in a folder, where its output goes to `log`. `ending` is the signal that ends the engine when
    /// this is dropped or this process dies.
    ///
    /// # Panics
    /// When there is no `/bin/sh`.
    pub(crate) fn start(command: &[OsString], folder: &Path, ending: Signal) -> Self {
        let mut guard = Command::new("/bin/sh")
            // The script goes through a variable, so that a list of processes stays readable.
            .env("GUARD", GUARD)
            .args(["-c", "eval \"$GUARD\"", "guard.sh", &ending.as_raw().to_string()])
            .arg(folder)
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A caller may wait for the end of this process's standard error, which the guard must not keep open.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a system has /bin/sh");
        let line = guard.stdin.take().expect("standard input is a pipe");
        let mut pid = String::new();
        BufReader::new(guard.stdout.take().expect("standard output is a pipe"))
            .read_line(&mut pid)
            .expect("the guard says the engine's process id");
        let engine = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id is a number above 0");
        Self { guard, _line: line, engine, ending, log: folder.join("log") }
    }

    /// The engine's process id. An engine of several processes has the id of their parent.
    pub(crate) fn pid(&self) -> u32 {
        self.engine.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until the engine is `ready`.
    ///
    /// # Errors
    /// The end of the log, when the engine ends first or takes longer than `limit`.
    pub(crate) fn until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let end = Instant::now() + limit;
        while !ready() {
            if let Some(status) = self.status() {
                return Err(format!("it ended, {status}:\n{}", self.log()));
            }
            if Instant::now() > end {
                return Err(format!("it is not ready in {limit:?}:\n{}", self.log()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until the command ends by itself.
    ///
    /// # Errors
    /// The end of the log, when the command fails or takes longer than `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<(), String> {
        match self.ends_within(limit) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("it ended, {status}:\n{}", self.log())),
            None => Err(format!("it has not ended in {limit:?}:\n{}", self.log())),
        }
    }

    /// Ends the engine by `signal`, and by SIGKILL when that does not help. Returns when all its processes are gone.
    pub(crate) fn end(&mut self, signal: Signal) {
        let children = self.children();
        // A suspended process acts on no signal but SIGKILL.
        self.resume();
        self.send(self.engine, signal);
        if self.ends_within(Duration::from_secs(END_SECS_MAX)).is_none() {
            for pid in self.children().into_iter().chain([self.engine]) {
                self.send(pid, Signal::KILL);
            }
            self.ends_within(Duration::from_secs(END_SECS_MAX));
        }
        let end = Instant::now() + Duration::from_secs(END_SECS_MAX);
        while children.iter().any(|&child| lives(child)) && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
    }

    /// Suspends all processes of the engine. Their sockets stay open, and the system still accepts connections.
    pub(crate) fn pause(&mut self) {
        // A suspended parent starts no new children.
        self.send(self.engine, Signal::STOP);
        for child in self.children() {
            self.send(child, Signal::STOP);
        }
    }

    /// Lets the suspended processes run again.
    pub(crate) fn resume(&mut self) {
        for pid in self.children().into_iter().chain([self.engine]) {
            self.send(pid, Signal::CONT);
        }
    }

    /// The end of the engine's log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }

    fn send(&mut self, pid: Pid, signal: Signal) {
        // After the engine has ended, its process id may belong to another process.
        if self.status().is_none() {
            // A process that ends at this moment needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().expect("the guard is a child of this process")
    }

    fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            let status = self.status();
            if status.is_some() || Instant::now() > end {
                return status;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Living child processes of the engine, by `/proc`; none on systems without `/proc`.
    fn children(&self) -> Vec<Pid> {
        let parent = format!("PPid:\t{}", self.engine);
        let of_engine = |pid: &Pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| status.lines().any(|line| line == parent))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter(of_engine).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.ending);
    }
}

/// Whether the process lives. A dead process that its parent has not waited for does not count.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

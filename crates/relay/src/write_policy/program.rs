//! The program as a process: its pipes, and its end.
//!
//! The process leads a group of its own, so that its end is the end of every process that it started: a command with
//! spaces runs in a shell, whose death would leave the program itself behind.

use std::{io, path::Path, process::Stdio, time::SystemTime};

use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, ChildStdout, Command},
};
use tokio_util::codec::{FramedRead, LinesCodec};

use crate::config;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4_096;

/// See the module. Its processes are killed when this is dropped.
pub(super) struct Program {
    command: String,
    /// Time of the last change of the file that the command names.
    changed: Option<SystemTime>,
    stdin: ChildStdin,
    answers: FramedRead<ChildStdout, LinesCodec>,
    /// Bytes of questions that are not written yet, of [`super::ASKED_MAX`] questions at most.
    unwritten: Vec<u8>,
    written: usize,
    group: Group,
}

/// A process and its group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody waits for the process before it is dropped, so that its number belongs to no other group.
        let leader = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            // An error says that no process of the group is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Program {
    /// Starts a command: a path, or a command with spaces for the shell.
    ///
    /// # Errors
    /// If the system does not start it.
    pub(super) fn start(command: &str) -> io::Result<Self> {
        let mut start = if command.contains(' ') {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", command]);
            shell
        } else {
            Command::new(command)
        };
        // Variables of the relay may hold its secrets.
        for (name, _) in config::process_environment().filter(|(name, _)| name.starts_with("RNOSTR_")) {
            start.env_remove(name);
        }
        let start = start.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut group = Group(start.spawn()?);
        let (Some(stdin), Some(stdout)) = (group.0.stdin.take(), group.0.stdout.take()) else {
            return Err(io::Error::other("it has no pipes"));
        };
        Ok(Self {
            command: command.to_owned(),
            changed: changed(command),
            stdin,
            answers: FramedRead::new(stdout, LinesCodec::new_with_max_length(ANSWER_BYTES_MAX)),
            unwritten: Vec::new(),
            written: 0,
            group,
        })
    }

    /// Whether this is the program that the configuration names now, in the text that its file has now.
    pub(super) fn is(&self, command: &str) -> bool {
        self.command == command && self.changed == changed(command)
    }

    /// Queues a question for the program.
    pub(super) fn queue(&mut self, line: &[u8]) {
        self.unwritten.extend_from_slice(line);
    }

    /// Writes queued questions and waits for the next answer, both at one time: a program may answer one question
    /// before it reads the next one, and a question may be longer than the pipe.
    ///
    /// A call that is dropped loses nothing. `None` says that the program ended, closed a pipe, or wrote a line that is
    /// too long.
    pub(super) async fn exchange(&mut self) -> Option<String> {
        loop {
            let rest = &self.unwritten[self.written..];
            tokio::select! {
                answer = self.answers.next() => return answer?.ok(),
                wrote = self.stdin.write(rest), if !rest.is_empty() => match wrote {
                    Ok(0) | Err(_) => return None,
                    Ok(bytes) => self.wrote(bytes),
                },
            }
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.unwritten.len() {
            // A queue that was long once gives its memory back.
            (self.unwritten, self.written) = (Vec::new(), 0);
        }
    }

    /// The number of the process, for the log.
    pub(super) fn number(&self) -> Option<u32> {
        self.group.0.id()
    }
}

/// The time of the last change of the file that a command names, which is a path if it has no space.
fn changed(command: &str) -> Option<SystemTime> {
    if command.contains(' ') { None } else { Path::new(command).metadata().ok()?.modified().ok() }
}

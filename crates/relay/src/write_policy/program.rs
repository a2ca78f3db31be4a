//! The program as a process: its pipes, and its end.
//!
//! The process leads a group of its own, so that its end is the end of every process that it started: a command with
//! spaces runs in a shell, whose death would leave the program itself behind.

use std::{collections::VecDeque, io, path::Path, process::Stdio, time::SystemTime};

use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, ChildStdout, Command},
};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::ASKED_MAX;
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
    unwritten: Unwritten,
    group: Group,
}

/// The questions that are not written yet, in their order. Each gives its memory back once it is written, however many
/// wait behind it.
#[derive(Default)]
struct Unwritten {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of the first line that are written.
    written: usize,
}

impl Unwritten {
    /// Whether a further question may wait: one that was given up waits too, while the program does not read.
    fn has_room(&self) -> bool {
        self.lines.len() < ASKED_MAX
    }

    /// The next bytes to write; none if nothing waits.
    fn rest(&self) -> &[u8] {
        self.lines.front().map_or(&[], |line| &line[self.written..])
    }

    /// Notes that so many of [`Self::rest`] are written.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.rest().is_empty() {
            self.lines.pop_front();
            self.written = 0;
        }
    }
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
            unwritten: Unwritten::default(),
            group,
        })
    }

    /// Whether this is the program that the configuration names now, in the text that its file has now.
    pub(super) fn is(&self, command: &str) -> bool {
        self.command == command && self.changed == changed(command)
    }

    /// Whether a further question may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten.has_room()
    }

    /// Whether no question waits to be written.
    pub(super) fn has_read(&self) -> bool {
        self.unwritten.rest().is_empty()
    }

    /// Queues a question for the program; [`Self::has_room`] has said that it may wait.
    pub(super) fn queue(&mut self, line: Vec<u8>) {
        self.unwritten.lines.push_back(line);
    }

    /// Writes queued questions and waits for the next answer, both at one time: a program may answer one question
    /// before it reads the next one, and a question may be longer than the pipe.
    ///
    /// A call that is dropped loses nothing. `None` says that the program ended, closed a pipe, or wrote a line that is
    /// too long.
    pub(super) async fn exchange(&mut self) -> Option<String> {
        loop {
            let rest = self.unwritten.rest();
            tokio::select! {
                answer = self.answers.next() => return answer?.ok(),
                wrote = self.stdin.write(rest), if !rest.is_empty() => match wrote {
                    Ok(0) | Err(_) => return None,
                    Ok(bytes) => self.unwritten.wrote(bytes),
                },
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Under load there is never a moment at which nothing waits to be written.
    #[test]
    fn a_written_question_gives_its_memory_back_although_others_wait() {
        const LINE_BYTES: usize = 1_000;
        let mut unwritten = Unwritten::default();
        let (mut asked, mut written) = (Vec::new(), Vec::new());
        for n in 0..10_000_usize {
            assert!(unwritten.has_room());
            let line = vec![n as u8; LINE_BYTES];
            asked.extend_from_slice(&line);
            unwritten.lines.push_back(line);
            while written.len() < asked.len() - 1 {
                let rest = unwritten.rest();
                let next = rest[..rest.len().min(asked.len() - 1 - written.len()).min(300)].to_vec();
                written.extend_from_slice(&next);
                unwritten.wrote(next.len());
            }
            let held: usize = unwritten.lines.iter().map(Vec::capacity).sum();
            assert!(held <= 2 * LINE_BYTES, "{held} bytes after {n} questions");
        }
        assert_eq!(written, asked[..asked.len() - 1], "in their order, each byte once");
        unwritten.wrote(1);
        assert!(unwritten.rest().is_empty() && unwritten.lines.is_empty());
    }

    /// A program that does not read is not asked without end.
    #[test]
    fn questions_wait_up_to_a_bound() {
        let mut unwritten = Unwritten::default();
        let asked = std::iter::from_fn(|| unwritten.has_room().then(|| unwritten.lines.push_back(vec![b'\n']))).count();
        assert_eq!(asked, ASKED_MAX);
    }
}

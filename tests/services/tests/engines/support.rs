//! Shared parts of the tests: clients for Redis and HTTP, and views of processes.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Longest wait for an answer that must come.
pub(crate) const WAIT: Duration = Duration::from_secs(20);
/// Wait for an answer that must not come.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

/// A connection to a Redis server, or to a proxy before it.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WAIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn send(&mut self, line: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())
    }

    /// The next line; empty when the connection has ended.
    pub(crate) fn read(&mut self, limit: Duration) -> std::io::Result<String> {
        self.0.get_ref().set_read_timeout(Some(limit))?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.send(line)?;
        self.read(WAIT)
    }
}

/// Sends an HTTP request and returns the answer, head and body.
pub(crate) fn http(host: &str, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(WAIT))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    while reader.read_line(&mut answer)? > 2 {}
    let head = answer.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk says its size");
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            answer.push_str(&String::from_utf8_lossy(&chunk[..size]));
            if size == 0 {
                return Ok(answer);
            }
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut rest = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut rest)?;
    answer.push_str(&String::from_utf8_lossy(&rest));
    Ok(answer)
}

/// An engine's processes: the engine, its children, its guard and the guard's other children.
pub(crate) fn family(engine: u32) -> Vec<u32> {
    descendants(parent(engine).expect("it lives"))
}

/// A process and all its descendants.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<_> = processes().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(&above) = found.get(at) {
        found.extend(parents.iter().filter(|&&(_, parent)| parent == above).map(|&(pid, _)| pid));
        at += 1;
    }
    found
}

/// The engines' folders, taken from the command lines of their guards.
pub(crate) fn folders(pids: &[u32]) -> BTreeSet<PathBuf> {
    let words = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = pids.iter().map(words).collect();
    let words = words.iter().flat_map(|line| line.split('\0')).map(Path::new);
    let is_folder = |word: &Path| {
        let name = word.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        word.is_absolute() && name.starts_with("rnostr-") && word.is_dir()
    };
    words.filter(|word| is_folder(word)).map(Path::to_path_buf).collect()
}

/// Waits until all processes have ended.
pub(crate) fn all_end(pids: &[u32]) {
    assert!(!pids.is_empty());
    let end = Instant::now() + WAIT;
    let living = || pids.iter().copied().filter(|&pid| lives(pid)).collect::<Vec<_>>();
    while !living().is_empty() {
        assert!(Instant::now() < end, "these are left behind: {:?}", living());
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn lives(pid: u32) -> bool {
    parent(pid).is_some()
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("Linux has it").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The parent's process id; `None` for a process that has ended, waited for or not.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    if ["Z", "X"].contains(&words.next()?) { None } else { words.next()?.parse().ok() }
}

//! The memory that this process may use.

use std::fs;

/// Files with the limit of this process's cgroup, of version 2 and of version 1.
const CGROUP_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/// Bytes of memory that are assumed where the system tells nothing.
const UNKNOWN: u64 = 1 << 30;

/// A quarter of the memory that this process may use: of the cgroup's limit, else of the machine's memory.
pub(super) fn quarter() -> usize {
    let limit = CGROUP_LIMITS.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).min();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)).unwrap_or(UNKNOWN);
    // A cgroup without a limit names none, or a number beyond any machine.
    let bytes = limit.unwrap_or(machine).min(machine) / 4;
    usize::try_from(bytes).unwrap_or(usize::MAX).max(16 << 20)
}

/// The machine's memory in bytes, by the text of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(total("MemTotal:       24567890 kB\nMemFree: 1 kB\n"), Some(24_567_890 * 1_024));
        assert_eq!(total("MemTotal: many kB"), None);
        assert_eq!(total(""), None);
    }
}

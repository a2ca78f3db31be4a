//! The one thread of a simulation reads a set clock and a seeded source of chance, and never waits for the system.
//!
//! The seam lies below Rust's standard library: this program defines the functions of the C library by which a process
//! learns the time, draws chance and waits for sockets. So every source is behind it, those of dependencies too: the
//! relay's `Instant`s, tokio's timers, the keys of hash tables, the branches of `select!`, challenges and marks. The
//! relay itself carries nothing for it, in any build. The alternatives reach less: tokio's paused clock leaves
//! `std::time::Instant` and the keys of hash tables alone, and its seed for `select!` needs `--cfg tokio_unstable` for
//! the whole workspace.
//!
//! - The clock stands while tasks run, but for [`TICK_NS`] at each reading, and jumps to the next timer when no task is
//!   ready: tokio then asks for sockets and says how long it would wait.
//! - Other threads of the process, such as the one that prints, have the system's time and chance.
//! - A process runs one simulation, since counters in statics, such as tokio's, go on from one to the next.
#![allow(unsafe_code, reason = "functions of the C library are defined here, for this program alone")]

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

use libc::{c_int, c_long, c_void, clockid_t, size_t, ssize_t, timespec};

use crate::chance;

/// Nanoseconds that each reading of the clock takes, so that a loop that waits for the time to pass ends.
const TICK_NS: u64 = 50;
/// The monotonic clock at the beginning of a simulation, in nanoseconds.
const BEGIN_NS: u64 = 1_000_000_000_000_000;
/// The time of day at the beginning of a simulation, in Unix seconds.
pub const BEGIN_SECS: u64 = 1_795_370_771;

thread_local! {
    static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
}
static NOW_NS: AtomicU64 = AtomicU64::new(BEGIN_NS);
static CHANCE: AtomicU64 = AtomicU64::new(0);
static READINGS: AtomicU64 = AtomicU64::new(0);

/// Puts this thread behind the seam, for the rest of its life.
pub fn enter(seed: u64) {
    CHANCE.store(seed, Ordering::Relaxed);
    IS_SIMULATED.set(true);
}

/// Milliseconds since the simulation began. The clock does not move by the question.
pub fn elapsed_ms() -> u64 {
    (NOW_NS.load(Ordering::Relaxed) - BEGIN_NS) / 1_000_000
}

/// Numbers that a run which takes the same way has drawn from the seam as often: readings of the clock, and the state
/// of chance.
pub fn position() -> (u64, u64) {
    (READINGS.load(Ordering::Relaxed), CHANCE.load(Ordering::Relaxed))
}

fn is_simulated() -> bool {
    IS_SIMULATED.try_with(Cell::get).unwrap_or(false)
}

/// Fills `bytes` bytes at `to` by the seeded source.
///
/// # Safety
/// As that of `getrandom(2)`.
unsafe fn fill(to: *mut c_void, bytes: size_t) {
    // SAFETY: the caller gives so many writable bytes.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), bytes) };
    for part in to.chunks_mut(8) {
        let mut state = CHANCE.load(Ordering::Relaxed);
        let number = chance::next(&mut state);
        CHANCE.store(state, Ordering::Relaxed);
        part.copy_from_slice(&number.to_le_bytes()[..part.len()]);
    }
}

/// See `getrandom(2)`.
///
/// # Safety
/// `to` points to `bytes` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(to: *mut c_void, bytes: size_t, flags: u32) -> ssize_t {
    if !is_simulated() {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_getrandom, to, bytes, flags) as ssize_t };
    }
    // SAFETY: the caller's promise is this function's.
    unsafe { fill(to, bytes) };
    bytes.cast_signed()
}

/// See `clock_gettime(2)`.
///
/// # Safety
/// `to` points to a writable `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    let is_set = matches!(clock, libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME);
    if !is_set || !is_simulated() {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), to) as c_int };
    }
    READINGS.fetch_add(1, Ordering::Relaxed);
    let mut now_ns = NOW_NS.fetch_add(TICK_NS, Ordering::Relaxed);
    if clock == libc::CLOCK_REALTIME {
        now_ns = now_ns - BEGIN_NS + BEGIN_SECS * 1_000_000_000;
    }
    let (secs, nanos) = (now_ns / 1_000_000_000, now_ns % 1_000_000_000);
    // SAFETY: the caller gives a writable value.
    unsafe { to.write(timespec { tv_sec: secs.cast_signed(), tv_nsec: nanos.cast_signed() }) };
    0
}

/// See `epoll_wait(2)`. The simulation's sockets never have anything to say, so the time passes at once.
///
/// # Safety
/// `events` points to room for `events_max` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    events_max: c_int,
    wait_ms: c_int,
) -> c_int {
    let real_wait_ms = if is_simulated() { 0 } else { wait_ms };
    let mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: the arguments are passed on as they came; without a mask this is `epoll_wait`.
    let found = unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, events, events_max, real_wait_ms, mask, 8) };
    if found == 0 && is_simulated() && wait_ms != 0 {
        let Ok(wait_ms) = u64::try_from(wait_ms) else {
            eprintln!("the simulation stands still: no task is ready, and none waits for a time");
            std::process::abort();
        };
        NOW_NS.fetch_add(wait_ms * 1_000_000, Ordering::Relaxed);
    }
    found as c_int
}

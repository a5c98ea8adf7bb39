//! Reads from `/proc` which processes run, and what this process holds.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Numbers of resources of this process that a plugin could leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Processes whose parent is this one, zombies included.
    pub children: usize,
}

impl Holdings {
    /// Counts what this process holds now.
    ///
    /// # Panics
    ///
    /// If `/proc` is not mounted.
    #[must_use]
    pub fn now() -> Self {
        Self {
            // Includes the descriptor that reads the folder.
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            children: children().len(),
        }
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            threads,
            children,
        } = self;
        write!(
            f,
            "{descriptors} descriptors, {threads} threads, {children} processes"
        )
    }
}

/// Returns the processes whose parent is this one, zombies included.
///
/// # Panics
///
/// If `/proc` is not mounted.
#[must_use]
pub fn children() -> Vec<u32> {
    children_of(std::process::id())
}

/// Returns the processes whose parent is `parent`, zombies included.
///
/// # Panics
///
/// If `/proc` is not mounted.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("procfs is mounted");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| parent_of(pid) == Some(parent))
        .collect()
}

/// Returns whether a process exists and is not a zombie.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    field_after_name(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// Returns the CPU time that this process and those that it has reaped have used.
///
/// # Panics
///
/// If `/proc` is not mounted.
#[must_use]
pub fn cpu_time() -> Duration {
    /// User and system time, of the process and of those it has reaped, in clock ticks.
    /// Counted from the field after the name.
    const TIMES: std::ops::Range<usize> = 11..15;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let ticks: u64 = TIMES
        .filter_map(|field| {
            field_after_name(std::process::id(), field)?
                .parse::<u64>()
                .ok()
        })
        .sum();
    Duration::from_millis(ticks * 1_000 / ticks_per_second)
}

fn parent_of(pid: u32) -> Option<u32> {
    field_after_name(pid, 1)?.parse().ok()
}

/// Returns a field of the process's `stat`, counted from the one after its name.
fn field_after_name(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields follow the last `)`.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field).map(str::to_owned)
}

fn entries(folder: impl AsRef<Path>) -> usize {
    fs::read_dir(folder).expect("procfs is mounted").count()
}

//! What this process holds, as the kernel tells it.

use std::fs;
use std::path::Path;

/// Counts of what a plugin could leave behind.
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
    /// If `/proc` is not there.
    #[must_use]
    pub fn now() -> Self {
        Self {
            // Reading the folder takes a descriptor itself, each time.
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            children: children().len(),
        }
    }
}

/// Returns the processes whose parent is this one, zombies included.
///
/// # Panics
///
/// If `/proc` is not there.
#[must_use]
pub fn children() -> Vec<u32> {
    let this = std::process::id();
    let processes = fs::read_dir("/proc").expect("procfs is mounted");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| parent_of(pid) == Some(this))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields follow the last of them.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

fn entries(folder: impl AsRef<Path>) -> usize {
    fs::read_dir(folder).expect("procfs is mounted").count()
}

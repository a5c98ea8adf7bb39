//! Everything that descends from this process, found in `/proc` and killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::super::stat::Stat;

/// The list of all processes.
pub(super) struct Processes(OwnedFd);

/// What became of an attempt to kill all descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Toll {
    /// Some were there. Others may have been started meanwhile, by those that die now.
    Some,
    /// There are some, and none that this process may kill or that it sees.
    OutOfReach,
}

impl Processes {
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, "/proc", flags, Mode::empty())?))
    }

    /// Kills all descendants that there are now. There is at least one child, living
    /// or dead.
    ///
    /// # Errors
    ///
    /// If the list cannot be read, for want of memory or descriptors.
    pub(super) fn kill_descendants(&self) -> io::Result<Toll> {
        let this = getpid().as_raw_pid();
        let all = self.all()?;
        let mut toll = Toll::OutOfReach;
        for pid in descendants(&all, this) {
            let seen = all[&pid];
            if seen.dead {
                // A dead child of another one is that one's, or soon ours.
                if seen.parent == this {
                    toll = Toll::Some;
                }
            } else if self.kill(pid, seen, this) {
                toll = Toll::Some;
            }
        }
        Ok(toll)
    }

    /// Kills the process that was `seen`, and no later one of its number. Returns
    /// whether it was allowed to.
    fn kill(&self, pid: i32, seen: Stat, this: i32) -> bool {
        let Some(number) = Pid::from_raw(pid) else {
            return false;
        };
        let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else {
            // It is gone: there may be others now.
            return true;
        };
        // The number means the same before and after the descriptor was made for it, so
        // this is what the descriptor is of. A parent's death may have made it ours.
        let same = |now: Stat| {
            now.started == seen.started && (now.parent == seen.parent || now.parent == this)
        };
        if !self.stat(pid).is_some_and(same) {
            return true;
        }
        pidfd_send_signal(&pidfd, Signal::KILL) != Err(Errno::PERM)
    }

    fn all(&self) -> io::Result<BTreeMap<i32, Stat>> {
        let mut all = BTreeMap::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let number = entry.file_name().to_str().ok();
            if let Some(pid) = number.and_then(|number| number.parse().ok())
                && let Some(stat) = self.stat(pid)
            {
                all.insert(pid, stat);
            }
        }
        Ok(all)
    }

    /// Returns `None` if there is no such process.
    fn stat(&self, pid: i32) -> Option<Stat> {
        Stat::read(&self.0, &format!("{pid}/stat"))
    }
}

/// Returns the descendants of `ancestor`.
fn descendants(all: &BTreeMap<i32, Stat>, ancestor: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    loop {
        let known = found.len();
        for (&pid, stat) in all {
            if stat.parent == ancestor || found.contains(&stat.parent) {
                found.insert(pid);
            }
        }
        if found.len() == known {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_parent() {
        let processes = Processes::open().expect("procfs is mounted");
        let all = processes.all().expect("it can be read");
        let this = all[&getpid().as_raw_pid()];
        let parent = rustix::process::getppid().map(Pid::as_raw_pid);
        assert_eq!(Some(this.parent), parent);
        assert!(!this.dead && this.started > 0);
    }

    #[test]
    fn grandchildren_are_descendants_in_whatever_order_they_are_numbered() {
        let stat = |parent| Stat {
            parent,
            exiting: false,
            dead: false,
            started: 1,
        };
        let all = [
            (2, stat(30)),
            (10, stat(1)),
            (30, stat(10)),
            (31, stat(1)),
            (40, stat(2)),
        ];
        let found = descendants(&all.into_iter().collect(), 10);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 30, 40]);
    }
}

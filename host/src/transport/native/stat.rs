//! What `/proc/PID/stat` says of a process.

use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Pid;

/// More than the file ever holds, in bytes: 52 numbers and a short name.
const LENGTH: usize = 2 << 10;

/// The kernel's `PF_EXITING`, which is set before a process gives its descriptors back.
const EXITING: u32 = 0x4;

/// What is of use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    /// It runs no instruction of its program any more, and may not be a zombie yet.
    pub(super) exiting: bool,
    pub(super) dead: bool,
    /// When it was started; tells it from an earlier process of the same number.
    pub(super) started: u64,
}

impl Stat {
    /// Returns `None` if there is no such process, or nobody can tell.
    pub(super) fn of(pid: Pid) -> Option<Self> {
        Self::read(CWD, &format!("/proc/{}/stat", pid.as_raw_pid()))
    }

    /// Reads the file at `path`, which starts at `folder`.
    pub(super) fn read(folder: impl AsFd, path: &str) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(folder, path, flags, Mode::empty()).ok()?;
        let mut line = [0; LENGTH];
        // The kernel gives all of it at once.
        let length = rustix::io::read(file, &mut line).ok()?;
        parse(&line[..length])
    }
}

fn parse(line: &[u8]) -> Option<Stat> {
    // The name, in parentheses, may hold anything; the fields follow the last of them.
    let end_of_name = line.iter().rposition(|&byte| byte == b')')?;
    let fields = str::from_utf8(&line[end_of_name + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    let threads: u32 = fields.nth(10)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        parent,
        exiting: flags & EXITING != 0,
        // A process whose first thread has ended looks like a zombie, but has others.
        dead: matches!(state, "Z" | "X") && threads < 2,
        started,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{WaitId, WaitIdOptions, getpid, getppid, waitid};

    use super::*;

    fn line(pid: i32, name: &str, state: &str, parent: i32, threads: u32) -> String {
        format!(
            "{pid} ({name}) {state} {parent} 7 7 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 {threads} 0 4242 8 9\n"
        )
    }

    #[test]
    fn a_name_may_hold_anything() {
        for name in ["sh", "a) Z 1 1 (b", ") ", "\u{fffd}"] {
            let stat = parse(line(9, name, "S", 8, 1).as_bytes());
            let expected = Stat {
                parent: 8,
                exiting: false,
                dead: false,
                started: 4242,
            };
            assert_eq!(stat, Some(expected), "{name:?}");
        }
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_not_dead() {
        let dead = |state, threads| {
            parse(line(9, "sh", state, 8, threads).as_bytes()).map(|stat| stat.dead)
        };
        assert_eq!(dead("Z", 1), Some(true));
        assert_eq!(dead("Z", 2), Some(false));
        assert_eq!(dead("T", 1), Some(false));
    }

    #[test]
    fn half_a_line_says_nothing() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"9 (sh) S 8 7"), None);
    }

    #[test]
    fn this_process_lives_and_has_its_parent() {
        let this = Stat::of(getpid()).expect("procfs is mounted");
        assert_eq!(Some(this.parent), getppid().map(Pid::as_raw_pid));
        assert!(!this.exiting && !this.dead && this.started > 0);
    }

    #[test]
    fn one_that_has_exited_is_exiting_until_it_is_reaped() {
        let mut child = Command::new("true")
            .spawn()
            .expect("it is on every machine");
        let pid = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).expect("it is our child");
        let zombie = Stat::of(pid).expect("nobody has reaped it");
        assert!(zombie.exiting && zombie.dead);
        child.wait().expect("it is our child");
        assert_eq!(Stat::of(pid), None);
    }
}

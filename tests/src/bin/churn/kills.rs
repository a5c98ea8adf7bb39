//! Kills hosts while they run a plugin.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use conformance::liveness_pipe::LivenessPipe;
use conformance::process::children;
use rustix::io::Errno;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};

use crate::litter;

/// A process that is still running after this time counts as left.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time between the event of a stage and the kill, in microseconds.
const LATEST: u64 = 5_000;

/// Longest time between the start of a host and its kill while launching, in microseconds.
const LATEST_LAUNCH: u64 = 30_000;

const INSTANCE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The stage at which a host is killed.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Launching,
    Running,
    Closing,
}

/// Kills `count` runs of `admit check`, and waits each time until their processes are gone.
///
/// # Errors
///
/// If a process is left.
pub(crate) fn run(admit: &Path, count: u32) -> anyhow::Result<()> {
    // Orphans become children of this process, so none is missed.
    set_child_subreaper(Some(getpid())).context("cannot adopt orphans")?;
    let mut tally = Tally::default();
    let stages = [Stage::Launching, Stage::Running, Stage::Closing];
    for stage in stages.into_iter().cycle().take(count as usize) {
        let took = kill_one(admit, stage)
            .with_context(|| format!("after a SIGKILL of admit while {stage:?}"))?;
        tally.add(stage, took);
    }
    println!("{tally}");
    Ok(())
}

/// Returns the time from the kill to the exit of the last process.
fn kill_one(admit: &Path, stage: Stage) -> anyhow::Result<Duration> {
    let mut liveness = LivenessPipe::new();
    let mut host = match stage {
        Stage::Launching => start(admit, &["allow"], &litter::silent(&liveness))?,
        // One check stays pending, so `admit` keeps running.
        Stage::Running => start(admit, &["allow", "hang"], &litter::answering(&liveness))?,
        Stage::Closing => start(admit, &["allow"], &litter::lingering(&liveness))?,
    };
    match stage {
        Stage::Launching if rand::random() => pause(LATEST_LAUNCH),
        Stage::Launching => {
            wait_for_lines(&mut liveness, litter::LINES)?;
            pause(LATEST);
        }
        Stage::Running => {
            let stdout = host.stdout.take().context("its stdout is a pipe")?;
            let mut first = String::new();
            BufReader::new(stdout).read_line(&mut first)?;
            if !first.contains("\"admitted\"") {
                bail!("admit printed {first:?}");
            }
            pause(LATEST);
        }
        Stage::Closing => {
            wait_for_lines(&mut liveness, litter::LINES + 1)?;
            pause(LATEST);
        }
    }
    host.kill().context("cannot kill admit")?;
    let killed = Instant::now();
    host.wait().context("cannot wait for admit")?;
    loop {
        let orphans = reap()?;
        if !orphans && !liveness.has_writer() {
            return Ok(killed.elapsed());
        }
        if killed.elapsed() > TIMEOUT {
            bail!("still running: {}", describe(&children()));
        }
        sleep(Duration::from_micros(100));
    }
}

fn start(admit: &Path, packages: &[&str], plugin: &[std::ffi::OsString]) -> anyhow::Result<Child> {
    Command::new(admit)
        .args(["check", "--format", "json"])
        .args(
            packages
                .iter()
                .map(|package| format!("{package}:{INSTANCE}")),
        )
        .arg("--")
        .args(plugin)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", admit.display()))
}

/// Waits until the plugin has written this many lines.
fn wait_for_lines(liveness: &mut LivenessPipe, lines: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    while liveness.text().lines().count() < lines {
        if started.elapsed() > TIMEOUT {
            bail!("the plugin has only written {:?}", liveness.text());
        }
        sleep(Duration::from_micros(100));
    }
    Ok(())
}

fn pause(latest: u64) {
    sleep(Duration::from_micros(rand::random_range(0..latest)));
}

/// Reaps every process that has exited; returns whether a child is still running.
fn reap() -> anyhow::Result<bool> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(Errno::CHILD) => return Ok(false),
            Err(error) => return Err(error).context("cannot wait for orphans"),
        }
    }
}

fn describe(processes: &[u32]) -> String {
    let lines = processes.iter().map(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        format!("{pid} ({})", command.trim_end())
    });
    lines.collect::<Vec<_>>().join(", ")
}

/// The number of kills in each stage, and how long the processes took to exit.
#[derive(Default)]
struct Tally {
    launching: u32,
    running: u32,
    closing: u32,
    took: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, stage: Stage, took: Duration) {
        *match stage {
            Stage::Launching => &mut self.launching,
            Stage::Running => &mut self.running,
            Stage::Closing => &mut self.closing,
        } += 1;
        let place = self.took.partition_point(|&other| other < took);
        self.took.insert(place, took);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            launching,
            running,
            closing,
            took,
        } = self;
        write!(
            f,
            "admit: killed {launching} while launching, {running} while running, {closing} while closing"
        )?;
        if let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) {
            write!(
                f,
                "; the last process exited after {median:.1?} (median), {longest:.1?} (longest)"
            )?;
        }
        Ok(())
    }
}

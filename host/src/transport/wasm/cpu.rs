//! How much CPU time a guest may use in one burst, without a yield to the host.
//!
//! Counted at the ticks of the epoch only, so that an exchange of frames, which is
//! over long before the next tick, pays for no look at a clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shorter than this since it was resumed, a guest has not had its turn yet.
const TURN: Duration = Duration::from_millis(2);

/// Tells that the guest moved bytes through its stdin or stdout: it does not spin.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicBool);

impl Progress {
    pub(super) fn mark(&self) {
        // Set and taken by the thread that polls the guest; it orders nothing else.
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Counts the bursts of one guest. All its methods are called by whoever polls it.
#[derive(Debug)]
pub(super) struct CpuMeter {
    limit: Duration,
    burst: Mutex<Burst>,
}

impl CpuMeter {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            burst: Mutex::default(),
        }
    }

    /// The guest is about to be polled.
    pub(super) fn resumed(&self) {
        self.lock().resumed(thread_cpu_time);
    }

    /// The guest was polled and is pending.
    pub(super) fn paused(&self) {
        self.lock().paused();
    }

    /// The epoch ticked while the guest was running.
    pub(super) fn ticked(&self, progress: &Progress) -> Verdict {
        self.lock()
            .ticked(thread_cpu_time(), progress.take(), self.limit)
    }

    fn lock(&self) -> MutexGuard<'_, Burst> {
        self.burst.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of the guest at a tick.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has hardly begun: it may go on until the next tick.
    GoOn,
    /// It had its turn.
    Yield,
    /// It used more than the limit in one burst.
    Exceeded,
}

/// The CPU time of one burst. Instants are readings of the polling thread's CPU clock.
#[derive(Debug, Default)]
struct Burst {
    spent: Duration,
    /// Up to when `spent` is counted. Nothing before the first tick of a poll.
    counted: Option<Duration>,
    /// Whether the guest was resumed and has not been let through a tick since.
    fresh: bool,
    /// Whether the guest is pending because it was made to yield.
    yielded: bool,
}

impl Burst {
    fn resumed(&mut self, now: impl FnOnce() -> Duration) {
        self.fresh = true;
        if std::mem::take(&mut self.yielded) {
            // Perhaps on another thread than before, with a clock of its own.
            self.counted = Some(now());
        }
    }

    fn paused(&mut self) {
        if !self.yielded {
            *self = Self::default();
        }
    }

    fn ticked(&mut self, now: Duration, progress: bool, limit: Duration) -> Verdict {
        let slice = now.saturating_sub(self.counted.unwrap_or(now));
        self.counted = Some(now);
        self.spent = if progress {
            Duration::ZERO
        } else {
            self.spent + slice
        };
        if self.spent > limit {
            return Verdict::Exceeded;
        }
        // The tick may have been due while the guest was waiting.
        if std::mem::take(&mut self.fresh) && slice < TURN {
            return Verdict::GoOn;
        }
        self.yielded = true;
        Verdict::Yield
    }
}

fn thread_cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative on this clock.
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_guest_that_was_just_woken_goes_on_and_yields_at_the_next_tick() {
        let mut burst = Burst::default();
        burst.resumed(|| unreachable!("a wait needs no clock"));
        assert_eq!(burst.ticked(ms(100), false, LIMIT), Verdict::GoOn);
        assert_eq!(burst.ticked(ms(105), false, LIMIT), Verdict::Yield);
    }

    #[test]
    fn a_guest_that_gets_little_of_the_thread_yields_all_the_same() {
        let mut burst = Burst::default();
        burst.resumed(|| unreachable!("a wait needs no clock"));
        assert_eq!(burst.ticked(ms(100), false, LIMIT), Verdict::GoOn);
        assert_eq!(burst.ticked(ms(100), false, LIMIT), Verdict::Yield);
    }

    #[test]
    fn time_adds_up_over_forced_yields() {
        let mut burst = Burst::default();
        burst.resumed(|| ms(0));
        burst.ticked(ms(0), false, LIMIT);
        burst.ticked(ms(8), false, LIMIT);
        burst.paused();
        // What the thread did in between is not the guest's.
        burst.resumed(|| ms(1000));
        assert_eq!(burst.ticked(ms(1008), false, LIMIT), Verdict::Yield);
        burst.paused();
        burst.resumed(|| ms(2000));
        assert_eq!(burst.ticked(ms(2008), false, LIMIT), Verdict::Exceeded);
    }

    #[test]
    fn a_wait_ends_the_burst() {
        let mut burst = Burst::default();
        burst.resumed(|| ms(0));
        burst.ticked(ms(0), false, LIMIT);
        burst.ticked(ms(19), false, LIMIT);
        burst.paused();
        burst.resumed(|| ms(100));
        burst.paused();
        burst.resumed(|| unreachable!("a wait needs no clock"));
        burst.ticked(ms(100), false, LIMIT);
        assert_eq!(burst.ticked(ms(119), false, LIMIT), Verdict::Yield);
    }

    #[test]
    fn moving_bytes_ends_the_burst() {
        let mut burst = Burst::default();
        burst.resumed(|| ms(0));
        burst.ticked(ms(0), false, LIMIT);
        burst.ticked(ms(19), false, LIMIT);
        assert_eq!(burst.ticked(ms(38), true, LIMIT), Verdict::Yield);
        assert_eq!(burst.ticked(ms(50), false, LIMIT), Verdict::Yield);
        assert_eq!(burst.ticked(ms(59), false, LIMIT), Verdict::Exceeded);
    }
}

//! Interrupts a guest that computes, and limits the CPU time of each burst. A burst is the time
//! that a guest runs without yielding to the host by itself.
//!
//! A thread increments the engine's epoch every 5 ms. At the next epoch check in its code, the
//! guest calls [`CpuMeter::tick`], which decides whether the guest continues, yields or traps.
//! The clock is read only at epoch ticks. An exchange of frames takes less than a tick, so it
//! needs no clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, Store, UpdateDeadline};

use super::limits::LimitExceeded;
use crate::transport::LaunchError;

/// How often a computing guest yields to the session that polls it. Short enough not to delay
/// a frame or a close noticeably, long enough to cost nothing.
const TICK: Duration = Duration::from_millis(5);

/// Epoch ticks until the guest is interrupted: one, so every tick interrupts it.
const NEXT_TICK: u64 = 1;

/// Minimum time that a resumed guest runs before a tick makes it yield.
const MIN_SLICE: Duration = Duration::from_millis(2);

/// Counts the CPU time of one guest. The thread that polls the guest calls the methods.
#[derive(Debug)]
pub(super) struct CpuMeter {
    limit: Duration,
    /// Whether the guest has read from stdin or written to stdout since the last tick. Such a
    /// guest does not spin.
    moved_bytes: AtomicBool,
    burst: Mutex<Burst>,
}

/// The action for the guest at an epoch tick.
#[derive(Debug, PartialEq, Eq)]
enum TickAction {
    /// It has just been resumed, and runs until the next tick.
    Continue,
    Yield,
    /// It exceeded the limit.
    Trap,
}

impl CpuMeter {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            moved_bytes: AtomicBool::new(false),
            burst: Mutex::default(),
        }
    }

    /// Must be called when the guest has read or written.
    pub(super) fn mark_progress(&self) {
        // One thread stores and loads it, so it needs no ordering.
        self.moved_bytes.store(true, Ordering::Relaxed);
    }

    /// Must be called before the guest is polled.
    pub(super) fn resume(&self) {
        self.burst().resume(thread_cpu_time);
    }

    /// Must be called after the guest was polled, if it is pending.
    pub(super) fn pause(&self) {
        self.burst().pause();
    }

    /// Interrupts the guest of `store` at epoch ticks.
    pub(super) fn interrupt<T: 'static>(self: Arc<Self>, store: &mut Store<T>) {
        // The default deadline has already passed when the guest starts.
        store.set_epoch_deadline(NEXT_TICK);
        store.epoch_deadline_callback(move |_| match self.tick() {
            TickAction::Continue => Ok(UpdateDeadline::Continue(NEXT_TICK)),
            TickAction::Yield => Ok(UpdateDeadline::Yield(NEXT_TICK)),
            TickAction::Trap => Err(LimitExceeded::cpu(self.limit).into()),
        });
    }

    /// Must be called at an epoch tick while the guest runs.
    fn tick(&self) -> TickAction {
        let progress = self.moved_bytes.swap(false, Ordering::Relaxed);
        self.burst().tick(thread_cpu_time(), progress, self.limit)
    }

    fn burst(&self) -> MutexGuard<'_, Burst> {
        self.burst.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CPU time of one burst. Its points in time are readings of the polling thread's CPU clock.
#[derive(Debug, Default)]
struct Burst {
    used: Duration,
    /// When `used` was last updated. `None` until the first tick of a poll.
    updated: Option<Duration>,
    /// Whether the guest was resumed and has not passed a tick since.
    just_resumed: bool,
    /// Whether the guest is pending because a tick made it yield.
    yielded: bool,
}

impl Burst {
    fn resume(&mut self, now: impl FnOnce() -> Duration) {
        self.just_resumed = true;
        if std::mem::take(&mut self.yielded) {
            // The guest may be on another thread now, which has its own CPU clock.
            self.updated = Some(now());
        }
    }

    fn pause(&mut self) {
        if !self.yielded {
            *self = Self::default();
        }
    }

    fn tick(&mut self, now: Duration, progress: bool, limit: Duration) -> TickAction {
        let slice = now.saturating_sub(self.updated.unwrap_or(now));
        self.updated = Some(now);
        self.used = if progress {
            Duration::ZERO
        } else {
            self.used + slice
        };
        if self.used > limit {
            return TickAction::Trap;
        }
        // The tick may have been due while the guest was waiting.
        if std::mem::take(&mut self.just_resumed) && slice < MIN_SLICE {
            return TickAction::Continue;
        }
        self.yielded = true;
        TickAction::Yield
    }
}

fn thread_cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // This clock is never negative.
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// Increments the engine's epoch every [`TICK`] until it is dropped.
pub(super) struct Ticker {
    /// Dropping it wakes the thread, which then exits.
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Returns the ticker of the process. Starts it for the first component.
    ///
    /// # Errors
    ///
    /// If the system cannot start another thread.
    pub(super) fn acquire(engine: &Engine) -> Result<Arc<Self>, LaunchError> {
        static SHARED: Mutex<Weak<Ticker>> = Mutex::new(Weak::new());

        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticker) = shared.upgrade() {
            return Ok(ticker);
        }
        let ticker = Arc::new(Self::start(engine)?);
        *shared = Arc::downgrade(&ticker);
        Ok(ticker)
    }

    fn start(engine: &Engine) -> Result<Self, LaunchError> {
        let (stop, stopped) = mpsc::sync_channel(0);
        let engine = engine.weak();
        let thread = thread::Builder::new()
            .name("epoch-ticker".into())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
            })
            .map_err(|source| LaunchError::Spawn {
                words: format!("cannot start the thread of the epoch ticker: {source}"),
                source,
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Joined, so that no thread is left after the last close. The thread exits at once
            // and cannot panic.
            let _never_panics = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_guest_that_was_just_resumed_yields_at_the_second_tick() {
        let mut burst = Burst::default();
        burst.resume(|| unreachable!("a wait needs no clock"));
        assert_eq!(burst.tick(ms(100), false, LIMIT), TickAction::Continue);
        assert_eq!(burst.tick(ms(105), false, LIMIT), TickAction::Yield);
    }

    #[test]
    fn a_guest_that_used_no_cpu_time_yields_at_the_second_tick() {
        let mut burst = Burst::default();
        burst.resume(|| unreachable!("a wait needs no clock"));
        assert_eq!(burst.tick(ms(100), false, LIMIT), TickAction::Continue);
        assert_eq!(burst.tick(ms(100), false, LIMIT), TickAction::Yield);
    }

    #[test]
    fn cpu_time_adds_up_over_forced_yields() {
        let mut burst = Burst::default();
        burst.resume(|| ms(0));
        burst.tick(ms(0), false, LIMIT);
        burst.tick(ms(8), false, LIMIT);
        burst.pause();
        // The thread was busy with something else in between.
        burst.resume(|| ms(1000));
        assert_eq!(burst.tick(ms(1008), false, LIMIT), TickAction::Yield);
        burst.pause();
        burst.resume(|| ms(2000));
        assert_eq!(burst.tick(ms(2008), false, LIMIT), TickAction::Trap);
    }

    #[test]
    fn a_wait_ends_the_burst() {
        let mut burst = Burst::default();
        burst.resume(|| ms(0));
        burst.tick(ms(0), false, LIMIT);
        burst.tick(ms(19), false, LIMIT);
        burst.pause();
        burst.resume(|| ms(100));
        burst.pause();
        burst.resume(|| unreachable!("a wait needs no clock"));
        burst.tick(ms(100), false, LIMIT);
        assert_eq!(burst.tick(ms(119), false, LIMIT), TickAction::Yield);
    }

    #[test]
    fn moving_bytes_ends_the_burst() {
        let mut burst = Burst::default();
        burst.resume(|| ms(0));
        burst.tick(ms(0), false, LIMIT);
        burst.tick(ms(19), false, LIMIT);
        assert_eq!(burst.tick(ms(38), true, LIMIT), TickAction::Yield);
        assert_eq!(burst.tick(ms(50), false, LIMIT), TickAction::Yield);
        assert_eq!(burst.tick(ms(59), false, LIMIT), TickAction::Trap);
    }

    #[test]
    fn components_share_one_ticker() {
        let engine = super::super::engine::engine().unwrap();
        let one = Ticker::acquire(engine).unwrap();
        let other = Ticker::acquire(engine).unwrap();
        assert!(Arc::ptr_eq(&one, &other));
    }
}

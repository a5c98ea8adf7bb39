//! When to ask again, and after which pause.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use admission_proto::{Code, Status};

use super::oversize;

/// Longest pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause after any.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Retries that all calls together have while none succeeds. As many as 8 calls make in
/// their first ten seconds.
const RETRIES: u32 = 40;

/// Successes that earn a retry: a service that fails every tenth call is asked again
/// each time, one that fails every second call is not.
const SUCCESSES: u32 = 8;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) retry: Retry,
}

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// After a pause that grows.
    Later,
    /// After this pause at least, which the service asks for.
    After(Duration),
}

impl Failure {
    /// Creates the failure of a call that would fail again.
    pub(super) fn lasting(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: Status::new(code, message),
            retry: Retry::Never,
        }
    }

    /// Creates a failure with the service's own status.
    pub(super) fn of_service(status: Status, asked_for: Option<Duration>) -> Self {
        let retry = if is_transient(&status) {
            Retry::at_least(asked_for)
        } else {
            Retry::Never
        };
        Self { status, retry }
    }
}

impl Retry {
    /// Returns the retry after a pause that the service may have asked for.
    pub(super) fn at_least(asked_for: Option<Duration>) -> Self {
        asked_for.map_or(Self::Later, Self::After)
    }

    /// Returns how long to wait after so many failures, if it is worth it. `luck` is a
    /// random number from 0 to 1, which keeps many callers from coming back at once.
    pub(super) fn pause(self, failures: u32, luck: f64) -> Option<Duration> {
        let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let longest = doubled.min(LONGEST_PAUSE);
        let pause = longest.mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0);
        match self {
            Self::Never => None,
            Self::Later => Some(pause),
            Self::After(least) => Some(pause.max(least)),
        }
    }
}

/// Tells whether a status of the service may be another one soon.
///
/// INTERNAL is what services of this family make of a hiccup of their storage, UNKNOWN of
/// errors that they have no name for.
fn is_transient(status: &Status) -> bool {
    let codes = [
        Code::UNKNOWN,
        Code::DEADLINE_EXCEEDED,
        Code::RESOURCE_EXHAUSTED,
        Code::INTERNAL,
        Code::UNAVAILABLE,
    ];
    codes.contains(&status.code) && !oversize::is_reported_by(status)
}

/// Tells whether a status of HTTP, without one of the service, may be another one soon.
pub(super) fn is_transient_http(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Bounds the retries of all calls together, so that a service that is down is not asked
/// over and over by thousands of checks, nor does each of them wait for it.
pub(super) struct Budget {
    /// In parts of a retry, of which a success earns one.
    parts: AtomicU32,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            parts: AtomicU32::new(RETRIES * SUCCESSES),
        }
    }

    /// Takes one retry. Returns whether there was one.
    pub(super) fn take(&self) -> bool {
        self.change(|parts| parts.checked_sub(SUCCESSES))
    }

    /// Takes note of a success.
    pub(super) fn earn(&self) {
        self.change(|parts| (parts < RETRIES * SUCCESSES).then_some(parts + 1));
    }

    fn change(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        let order = Ordering::Relaxed;
        self.parts.fetch_update(order, order, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_lie_within_their_upper_half() {
        let longest: Vec<_> = (1..=8)
            .map(|failures| Retry::Later.pause(failures, 1.0).expect("a pause"))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(longest, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(Retry::Later.pause(3, 0.0), Some(Duration::from_millis(500)));
        assert_eq!(Retry::Later.pause(u32::MAX, 1.0), Some(LONGEST_PAUSE));
    }

    #[test]
    fn a_pause_that_the_service_asks_for_is_kept() {
        let minute = Duration::from_secs(60);
        assert_eq!(Retry::After(minute).pause(1, 0.5), Some(minute));
        assert_eq!(
            Retry::After(Duration::ZERO).pause(1, 1.0),
            Some(FIRST_PAUSE)
        );
        assert_eq!(Retry::Never.pause(1, 0.5), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let transient = |code: i32| is_transient(&Status::new(code.into(), ""));
        let codes: Vec<i32> = (-1..=17).filter(|&code| transient(code)).collect();
        // UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE.
        assert_eq!(codes, [2, 4, 8, 13, 14]);
        assert!(!is_transient(&oversize::status(None, 5)));
        let http: Vec<u16> = (100..600).filter(|&code| is_transient_http(code)).collect();
        assert_eq!(http, [408, 429, 500, 502, 503, 504]);
    }

    #[test]
    fn retries_are_used_up_by_failures_and_earned_by_successes() {
        let budget = Budget::new();
        budget.earn();
        assert_eq!((0..100).filter(|_| budget.take()).count(), 40);
        for _ in 0..SUCCESSES {
            assert!(!budget.take());
            budget.earn();
        }
        assert!(budget.take());
        assert!(!budget.take());
    }
}

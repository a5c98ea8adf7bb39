//! Retries of a call: which failures are retried, how often, after which pause, and until when.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use admission_proto::{Code, Status, escape};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::PrpcRepository;
use super::token::Token;
use crate::repository::MetadataPage;

/// Longest pause after the first failure of a call.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause after any failure.
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// Maximum number of retries, for all calls together, while no call succeeds. Eight concurrent
/// calls use them up in ten seconds.
const RETRIES: u32 = 40;

/// Number of successes that allow one more retry. So if every tenth call fails, all failures
/// are retried; if every second call fails, most are not.
const SUCCESSES_PER_RETRY: u32 = 8;

/// Type of the error detail with which the service reports that its response is larger than
/// the client accepts.
const RESPONSE_TOO_BIG: &str = "/luci.prpc.ErrorDetails";

impl PrpcRepository {
    /// Calls the service until a call succeeds, a failure is permanent, no retry is left, or the
    /// deadline has passed.
    pub(super) async fn call_with_retries(&self, request: Bytes) -> Result<MetadataPage, Status> {
        let deadline = Instant::now() + self.deadline;
        let mut last_error = None;
        let mut failures = 0;
        let mut rejected_token = None;
        loop {
            let token = self.token(rejected_token.as_ref(), deadline).await?;
            let time_left = deadline.saturating_duration_since(Instant::now());
            let call = self.client.call(request.clone(), token.as_ref(), time_left);
            let Ok(result) = timeout_at(deadline, call).await else {
                return Err(self.deadline_exceeded(last_error));
            };
            let Failure {
                status,
                retry_after,
            } = match result {
                Ok(page) => {
                    self.budget.deposit();
                    return Ok(page);
                }
                Err(failure) => failure,
            };
            if status.code == Code::UNAUTHENTICATED && token.is_some() && rejected_token.is_none() {
                // The token may have expired early, so the call is retried once, with a new token.
                rejected_token = token;
                last_error = Some(status);
                continue;
            }
            let Some(retry_after) = retry_after else {
                // A permanent failure counts as a success, because the service is up.
                self.budget.deposit();
                return Err(status);
            };
            if !self.budget.withdraw() {
                return Err(status);
            }
            failures += 1;
            let pause = backoff(failures).max(retry_after);
            let (code, error) = (status.code, escape(&status.message));
            let url = &self.client.url;
            tracing::warn!(%url, %code, %error, ?pause, "the CIPD service failed, retrying");
            last_error = Some(status);
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                return Err(self.deadline_exceeded(last_error));
            }
            sleep(pause).await;
        }
    }

    async fn token(
        &self,
        rejected: Option<&Token>,
        deadline: Instant,
    ) -> Result<Option<Token>, Status> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let url = &self.client.url;
        match timeout_at(deadline, tokens.get(rejected)).await {
            Ok(Ok(token)) => Ok(Some(token)),
            Ok(Err(error)) => Err(Status::new(
                Code::UNAUTHENTICATED,
                format!("cannot get a token for the CIPD service {url}: {error}"),
            )),
            Err(_) => Err(Status::new(
                Code::DEADLINE_EXCEEDED,
                format!(
                    "there was no token for the CIPD service {url} within {:?}",
                    self.deadline
                ),
            )),
        }
    }

    fn deadline_exceeded(&self, last_error: Option<Status>) -> Status {
        let (url, deadline) = (&self.client.url, self.deadline);
        let mut text = format!("the CIPD service {url} did not answer within {deadline:?}");
        if let Some(Status { code, message, .. }) = last_error {
            text += &format!("; the last error was {code}: {message}");
        }
        Status::new(Code::DEADLINE_EXCEEDED, text)
    }
}

/// A failed call.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: Status,
    /// The shortest pause before a retry; `None` if a retry would fail again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// Creates the failure of a call that would fail again.
    pub(super) fn permanent(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: Status::new(code, message),
            retry_after: None,
        }
    }

    /// Creates the failure of a call that may succeed when it is retried.
    pub(super) fn transient(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: Status::new(code, message),
            retry_after: Some(Duration::ZERO),
        }
    }
}

/// Returns whether a retry may change this status of the service.
///
/// The service reports transient errors of its storage as INTERNAL, and errors without a code
/// as UNKNOWN.
pub(super) fn is_transient(status: &Status) -> bool {
    let is_too_big = |type_url: &str| type_url.ends_with(RESPONSE_TOO_BIG);
    matches!(
        status.code,
        Code::UNKNOWN
            | Code::DEADLINE_EXCEEDED
            | Code::RESOURCE_EXHAUSTED
            | Code::INTERNAL
            | Code::UNAVAILABLE
    ) && !status.details.iter().any(|d| is_too_big(&d.type_url))
}

/// Returns whether a retry may change this HTTP status of a response that is not pRPC.
pub(super) fn is_transient_http(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns the pause after this number of failures of a call. The longest pause doubles with each
/// failure, up to 8 seconds. The result is random, from half of the longest pause to all of it,
/// so that clients do not retry at the same time.
pub(super) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(MAX_PAUSE);
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// Limits the retries of all calls together, so that thousands of checks neither overload a
/// failing service nor wait for it one after the other.
pub(super) struct RetryBudget {
    /// The budget, in successes: a retry costs [`SUCCESSES_PER_RETRY`].
    balance: AtomicU32,
}

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self {
            balance: AtomicU32::new(RETRIES * SUCCESSES_PER_RETRY),
        }
    }

    /// Takes one retry from the budget. Returns whether there was one.
    pub(super) fn withdraw(&self) -> bool {
        self.update(|balance| balance.checked_sub(SUCCESSES_PER_RETRY))
    }

    /// Adds a success.
    pub(super) fn deposit(&self) {
        self.update(|balance| (balance < RETRIES * SUCCESSES_PER_RETRY).then_some(balance + 1));
    }

    fn update(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        let order = Ordering::Relaxed;
        self.balance.fetch_update(order, order, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use admission_proto::Detail;

    use super::*;

    #[test]
    fn pauses_double_up_to_8_seconds_and_their_second_half_is_random() {
        for (failures, longest) in [250, 500, 1000, 2000, 4000, 8000, 8000].iter().enumerate() {
            let longest = Duration::from_millis(*longest);
            let failures = u32::try_from(failures).expect("few") + 1;
            for _ in 0..100 {
                let pause = backoff(failures);
                assert!(
                    (longest / 2..=longest).contains(&pause),
                    "{failures}: {pause:?}"
                );
            }
        }
        assert!(backoff(u32::MAX) <= MAX_PAUSE);
    }

    #[test]
    fn only_transient_errors_are_retried() {
        let transient = |code: i32| is_transient(&Status::new(code.into(), ""));
        let codes: Vec<i32> = (-1..=17).filter(|&code| transient(code)).collect();
        // UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE.
        assert_eq!(codes, [2, 4, 8, 13, 14]);
        let http: Vec<u16> = (100..600).filter(|&code| is_transient_http(code)).collect();
        assert_eq!(http, [408, 429, 500, 502, 503, 504]);
    }

    #[test]
    fn a_response_that_is_too_large_is_not_retried() {
        let with_detail = |type_url: &str| {
            Status::new(Code::UNAVAILABLE, "").with_detail(Detail {
                type_url: type_url.into(),
                value: Vec::new(),
            })
        };
        assert!(!is_transient(&with_detail(
            "type.googleapis.com/luci.prpc.ErrorDetails"
        )));
        assert!(is_transient(&with_detail("type.googleapis.com/other")));
    }

    #[test]
    fn failures_use_up_retries_and_successes_earn_them() {
        let budget = RetryBudget::new();
        budget.deposit();
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 40);
        for _ in 0..SUCCESSES_PER_RETRY {
            assert!(!budget.withdraw());
            budget.deposit();
        }
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }
}

//! Bearer tokens, cached for a minute.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a token is used before the source is called again. Tools print tokens that are
/// valid for at least another minute, and are fast while they have a cached one.
const LIFETIME: Duration = Duration::from_secs(60);

/// An error of a source of tokens.
pub type TokenError = Box<dyn Error + Send + Sync>;

type TokenFuture = BoxFuture<'static, Result<String, TokenError>>;

/// An `Authorization` header. Marked as sensitive, so that its debug output hides it.
pub(super) type Token = HeaderValue;

/// The last token of a source.
pub(super) struct TokenCache {
    source: Box<dyn Fn() -> TokenFuture + Send + Sync>,
    last: Mutex<Option<Fetch>>,
}

/// A completed call of the source.
struct Fetch {
    result: Result<Token, String>,
    started: Instant,
    ended: Instant,
}

impl TokenCache {
    pub(super) fn new(source: impl Fn() -> TokenFuture + Send + Sync + 'static) -> Self {
        Self {
            source: Box::new(source),
            last: Mutex::default(),
        }
    }

    /// Returns a token. Calls the source for a new one if the cached token is `rejected`.
    ///
    /// # Errors
    ///
    /// The text of the source's error and its causes, or a text about a malformed token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the fetch that it started. A call that waits starts another.
    pub(super) async fn get(&self, rejected: Option<&Token>) -> Result<Token, String> {
        let called = Instant::now();
        // Locked during the fetch, so that calls that wait get the result of this fetch.
        let mut last = self.last.lock().await;
        if let Some(fetch) = &*last {
            let is_valid =
                |token: &Token| fetch.started.elapsed() < LIFETIME && Some(token) != rejected;
            if fetch.ended > called || fetch.result.as_ref().is_ok_and(is_valid) {
                return fetch.result.clone();
            }
        }
        let started = Instant::now();
        let result = self.fetch().await;
        *last = Some(Fetch {
            result: result.clone(),
            started,
            ended: Instant::now(),
        });
        result
    }

    async fn fetch(&self) -> Result<Token, String> {
        let text = (self.source)().await.map_err(|error| {
            let causes = successors(Some(&*error as &(dyn Error + 'static)), |&error| {
                error.source()
            });
            let texts: Vec<_> = causes.map(ToString::to_string).collect();
            texts.join(": ")
        })?;
        // The text is not shown: it may be a mistyped secret.
        let malformed = "the token is empty or has invalid characters";
        parse(&text).ok_or_else(|| malformed.to_owned())
    }
}

/// Parses the output of a token command, or the contents of a token file.
fn parse(token: &str) -> Option<Token> {
    let token = token.trim();
    // RFC 6750, section 2.1: the characters of a bearer token.
    let is_legal = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    if token.is_empty() || !token.bytes().all(is_legal) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;
    use tokio::time::advance;

    use super::*;

    /// Returns tokens `t1`, `t2` and so on.
    fn numbered() -> TokenCache {
        let calls = AtomicUsize::new(0);
        TokenCache::new(move || {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            std::future::ready(Ok(format!("t{call}\n"))).boxed()
        })
    }

    async fn get(tokens: &TokenCache) -> Token {
        tokens.get(None).await.expect("a token")
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_for_a_minute() {
        let tokens = numbered();
        for (pause, token) in [(0, 1), (59, 1), (1, 2), (59, 2), (1, 3)] {
            advance(Duration::from_secs(pause)).await;
            assert_eq!(get(&tokens).await, format!("Bearer t{token}"));
        }
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_once() {
        let tokens = numbered();
        let first = get(&tokens).await;
        assert_eq!(
            tokens.get(Some(&first)).await.expect("a token"),
            "Bearer t2"
        );
        // Another call whose token was the first one, too.
        assert_eq!(
            tokens.get(Some(&first)).await.expect("a token"),
            "Bearer t2"
        );
    }

    /// Returns a cache whose source waits for a permit, and how many fetches were started and
    /// how many are in progress.
    fn gated() -> (TokenCache, Arc<Semaphore>, impl Fn() -> (usize, usize)) {
        let gate = Arc::new(Semaphore::new(0));
        let started = Arc::new(AtomicUsize::new(0));
        let (gated, counted) = (Arc::clone(&gate), Arc::clone(&started));
        let in_progress = Arc::new(());
        let held = Arc::clone(&in_progress);
        let tokens = TokenCache::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let (gate, held) = (Arc::clone(&gated), Arc::clone(&held));
            async move {
                let _held = held;
                let _permit = gate.acquire().await?;
                Ok("t".to_owned())
            }
            .boxed()
        });
        let counts = move || {
            let in_progress = Arc::strong_count(&in_progress) - 2;
            (started.load(Ordering::SeqCst), in_progress)
        };
        (tokens, gate, counts)
    }

    #[tokio::test]
    async fn concurrent_calls_share_one_fetch() {
        let (tokens, gate, counts) = gated();
        let (mut first, mut second) = (Box::pin(get(&tokens)), Box::pin(get(&tokens)));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        gate.add_permits(1);
        assert_eq!(first.await, "Bearer t");
        assert_eq!(second.await, "Bearer t");
        assert_eq!(counts(), (1, 0));
    }

    #[tokio::test]
    async fn concurrent_calls_share_a_failed_fetch() {
        let (tokens, gate, counts) = gated();
        let (mut first, mut second) = (Box::pin(tokens.get(None)), Box::pin(tokens.get(None)));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        gate.close();
        first.await.expect_err("failed");
        second.await.expect_err("failed");
        assert_eq!(counts(), (1, 0));
    }

    #[tokio::test]
    async fn a_dropped_call_drops_its_fetch_and_a_waiting_call_starts_another() {
        let (tokens, gate, counts) = gated();
        let (mut first, mut second) = (Box::pin(get(&tokens)), Box::pin(get(&tokens)));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(counts(), (1, 0));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(counts(), (2, 1));
        gate.add_permits(1);
        assert_eq!(second.await, "Bearer t");
        assert_eq!(counts(), (2, 0));
    }

    #[tokio::test]
    async fn a_failed_fetch_is_not_cached_and_its_error_has_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot print a token")]
        struct Failed(#[from] std::fmt::Error);

        let calls = AtomicUsize::new(0);
        let tokens = TokenCache::new(move || {
            let token = match calls.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Failed(std::fmt::Error).into()),
                _ => Ok("t".to_owned()),
            };
            std::future::ready(token).boxed()
        });
        let error = tokens.get(None).await.expect_err("failed");
        let cause = std::fmt::Error;
        assert_eq!(error, format!("cannot print a token: {cause}"));
        assert_eq!(get(&tokens).await, "Bearer t");
    }

    #[test]
    fn only_a_valid_token_is_sent_and_debug_output_hides_it() {
        assert_eq!(
            parse(" ya29.a-B_c~+/=\r\n").expect("a token"),
            "Bearer ya29.a-B_c~+/="
        );
        assert!(!format!("{:?}", parse("secret")).contains("secret"));
        for malformed in ["", " \n", "two words", "a\nb", "a\u{e4}"] {
            assert!(parse(malformed).is_none(), "{malformed:?}");
        }
    }
}

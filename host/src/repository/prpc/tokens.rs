//! Bearer tokens: fetched when they are needed, shared by the calls of a minute.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared, ready};
use reqwest::header::HeaderValue;

/// How long a token is used before the source is asked again. Tools that print tokens
/// print such as are good for a minute at least, and are quick while they have one.
const LIFETIME: Duration = Duration::from_secs(60);

/// Why there is no token.
pub type TokenError = Box<dyn Error + Send + Sync>;

/// Where tokens come from.
pub(super) type TokenSource =
    Box<dyn Fn() -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync>;

/// The tokens of one service.
pub(super) struct Tokens {
    source: TokenSource,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    number: u64,
    /// The token, and when its fetch began.
    token: Option<(State, Instant)>,
}

enum State {
    /// Kept by the calls that wait for it alone: it ends with the last of them.
    Fetching(WeakShared<Fetch>),
    Fetched(Token),
}

type Fetch = BoxFuture<'static, Result<Token, NoToken>>;

/// A token, as it is sent.
#[derive(Clone)]
pub(super) struct Token {
    /// Marked as sensitive, so nothing shows it.
    pub(super) header: HeaderValue,
    /// Tells it from those fetched before and after it.
    number: u64,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NoToken {
    /// The source's own words, those of all causes.
    #[error("{0}")]
    Source(Arc<str>),
    /// Not shown: it may be a secret with a slip.
    #[error("the token is empty or has characters that no token has")]
    Malformed,
}

impl Tokens {
    pub(super) fn new(source: TokenSource) -> Self {
        Self {
            source,
            latest: Mutex::default(),
        }
    }

    /// Returns a token that is not known to be of no use. Calls that come while it is
    /// fetched wait for the same one.
    ///
    /// # Cancel safety
    ///
    /// The fetch is dropped when no call waits for it any more.
    pub(super) async fn get(&self) -> Result<Token, NoToken> {
        self.get_at(Instant::now()).await
    }

    async fn get_at(&self, now: Instant) -> Result<Token, NoToken> {
        let (number, fetch) = self.fetch(now);
        let fetched = fetch.await;
        match &fetched {
            Ok(token) => self.keep(token),
            Err(_) => self.forget(number),
        }
        fetched
    }

    /// Takes note that the service does not take a token.
    pub(super) fn refused(&self, token: &Token) {
        self.forget(token.number);
    }

    fn fetch(&self, now: Instant) -> (u64, Shared<Fetch>) {
        let mut latest = self.latest();
        if let Some((state, begun)) = &latest.token
            && now.saturating_duration_since(*begun) < LIFETIME
            && let Some(fetch) = state.resume()
        {
            return (latest.number, fetch);
        }
        latest.number += 1;
        let number = latest.number;
        let source = (self.source)();
        let fetch = async move {
            let token = source
                .await
                .map_err(|error| NoToken::Source(words(&*error)))?;
            let header = header(&token).ok_or(NoToken::Malformed)?;
            Ok(Token { header, number })
        };
        let fetch = fetch.boxed().shared();
        let state = fetch.downgrade().map(State::Fetching);
        latest.token = state.map(|state| (state, now));
        (number, fetch)
    }

    /// Keeps a token that was fetched, unless a later fetch has begun.
    fn keep(&self, fetched: &Token) {
        let mut latest = self.latest();
        if latest.number == fetched.number
            && let Some((state, _)) = &mut latest.token
        {
            *state = State::Fetched(fetched.clone());
        }
    }

    /// Drops a token, unless a later one has taken its place.
    fn forget(&self, number: u64) {
        let mut latest = self.latest();
        if latest.number == number {
            latest.token = None;
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns what yields the token, unless the fetch was given up.
    fn resume(&self) -> Option<Shared<Fetch>> {
        match self {
            Self::Fetching(fetch) => fetch.upgrade(),
            Self::Fetched(token) => Some(ready(Ok(token.clone())).boxed().shared()),
        }
    }
}

fn words(error: &(dyn Error + 'static)) -> Arc<str> {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let words: Vec<_> = causes.map(ToString::to_string).collect();
    words.join(": ").into()
}

/// Makes a header of a token as a command prints it or a file holds it.
fn header(token: &str) -> Option<HeaderValue> {
    let token = token.trim();
    // RFC 6750: what a bearer token may consist of.
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    if token.is_empty() || !token.bytes().all(legal) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Returns tokens `t1`, `t2` and so on.
    fn numbered() -> Tokens {
        let calls = AtomicUsize::new(0);
        Tokens::new(Box::new(move || {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            std::future::ready(Ok(format!("t{call}\n"))).boxed()
        }))
    }

    fn get(tokens: &Tokens) -> Token {
        let token = tokens.get().now_or_never().expect("ready");
        token.expect("a token")
    }

    #[test]
    fn a_token_is_used_for_a_minute() {
        let tokens = numbered();
        let now = Instant::now();
        let at = |seconds| {
            let get = tokens.get_at(now + Duration::from_secs(seconds));
            let token = get.now_or_never().expect("ready").expect("a token");
            token.header.to_str().expect("text").to_owned()
        };
        assert_eq!(
            [at(0), at(59), at(60), at(119), at(120)],
            [
                "Bearer t1",
                "Bearer t1",
                "Bearer t2",
                "Bearer t2",
                "Bearer t3"
            ]
        );
    }

    #[test]
    fn a_refused_token_is_not_used_again_and_a_later_one_is() {
        let tokens = numbered();
        let first = get(&tokens);
        tokens.refused(&first);
        let second = get(&tokens);
        assert_eq!(second.header, "Bearer t2");
        // Another call that was refused with the first one.
        tokens.refused(&first);
        assert_eq!(get(&tokens).header, "Bearer t2");
    }

    #[test]
    fn calls_at_the_same_time_share_one_fetch() {
        let calls = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let (counted, gated) = (Arc::clone(&calls), Arc::clone(&gate));
        let tokens = Tokens::new(Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&gated);
            async move {
                let _permit = gate.acquire().await?;
                Ok("t".to_owned())
            }
            .boxed()
        }));
        let (mut first, mut second) = (Box::pin(tokens.get()), Box::pin(tokens.get()));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        // The one that has begun the fetch goes away.
        drop(first);
        gate.add_permits(1);
        let token = second.now_or_never().expect("ready").expect("a token");
        assert_eq!(token.header, "Bearer t");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_fetch_ends_with_the_last_call_that_waits_for_it() {
        let begun = Arc::new(());
        let held = Arc::clone(&begun);
        let tokens = Tokens::new(Box::new(move || {
            let held = Arc::clone(&held);
            async move {
                let _held = held;
                std::future::pending().await
            }
            .boxed()
        }));
        let fetches = || Arc::strong_count(&begun) - 2;
        let (mut first, mut second) = (Box::pin(tokens.get()), Box::pin(tokens.get()));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(fetches(), 1);
        drop(second);
        assert_eq!(fetches(), 0);
        // Whoever comes next does not wait for what has ended.
        let mut third = Box::pin(tokens.get());
        assert!((&mut third).now_or_never().is_none());
        assert_eq!(fetches(), 1);
    }

    #[test]
    fn a_fetch_that_failed_is_not_kept() {
        let calls = AtomicUsize::new(0);
        let tokens = Tokens::new(Box::new(move || {
            let token = match calls.fetch_add(1, Ordering::SeqCst) {
                0 => Err("not logged in".into()),
                _ => Ok("t".to_owned()),
            };
            std::future::ready(token).boxed()
        }));
        let error = tokens.get().now_or_never().expect("ready").map(|_| ());
        assert_eq!(error.expect_err("failed").to_string(), "not logged in");
        assert_eq!(get(&tokens).header, "Bearer t");
    }

    #[test]
    fn nothing_but_a_token_is_sent_and_nothing_shows_it() {
        assert_eq!(
            header(" ya29.a-B_c~+/=\r\n").expect("a token"),
            "Bearer ya29.a-B_c~+/="
        );
        assert!(!format!("{:?}", header("secret")).contains("secret"));
        for malformed in ["", " \n", "two words", "a\nb", "a\u{e4}"] {
            assert!(header(malformed).is_none(), "{malformed:?}");
        }
    }
}

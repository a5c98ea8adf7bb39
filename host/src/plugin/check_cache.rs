//! The check cache: the promises of pending and of settled checks.
//!
//! A check gets the first of these: the promise of an earlier check of the same pin; the error
//! of a broken or closed plugin; an error if too many checks are pending; a new promise. An
//! uncached check skips the first step, and its promise is not cached.
//!
//! Holds no lock and reads no clock: callers pass the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use admission_proto::Pin;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::promise::{Promise, Resolver};
use crate::error::CheckError;
use crate::repository::Repository;

/// The promises of one plugin, and the checks that are pending.
#[derive(Default)]
pub(crate) struct CheckCache {
    plugin: Arc<str>,
    /// Checks that may be pending at once.
    max_pending: usize,
    /// The error of new checks, once the plugin is broken or closed.
    refusal: Option<CheckError>,
    promises: HashMap<Pin, Promise>,
    /// By number, which is also the order in which checks are sent.
    pending: BTreeMap<u64, Pending>,
    /// Number of the next check.
    next: u64,
    /// Lowest number that was not sent yet.
    unsent: u64,
    /// How many pending checks were sent.
    in_flight: usize,
    /// Checks that were settled after the plugin had made metadata calls for them.
    ended_callers: Vec<CheckId>,
}

struct Pending {
    question: Question,
    /// Makes the ID unguessable.
    nonce: u128,
    asked: Instant,
    resolver: Resolver,
    /// Whether the plugin has made a metadata call for it.
    has_calls: bool,
}

/// What a check asks about.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) pin: Pin,
    /// The service of the package, in an uncached check.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// The CIPD service of an uncached check.
pub(crate) struct Origin {
    pub(crate) service_url: String,
    /// Serves the metadata calls for this check.
    pub(crate) repository: Arc<dyn Repository>,
}

/// Nonce and time of a check, which distinguish it from other checks of the same pin.
pub(crate) struct Stamp {
    /// Random. Makes the check's ID unguessable.
    pub(crate) nonce: u128,
    /// When the check was requested.
    pub(crate) asked: Instant,
}

/// A check that was removed, to be settled with no lock held.
pub(crate) struct Taken {
    pub(crate) resolver: Resolver,
    /// Dropped with no lock held, too: its repository is foreign code.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// Names one check on the wire: its number and a random part.
///
/// Never reused, so a late verdict cannot settle a newer check of the same pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckId {
    number: u64,
    nonce: u128,
}

impl CheckCache {
    /// Creates the empty cache of `plugin`.
    pub(crate) fn new(plugin: Arc<str>, max_pending: usize) -> Self {
        Self {
            plugin,
            max_pending,
            ..Self::default()
        }
    }

    /// Returns the promise of a check of `pin`, and whether it is a new check. With an
    /// `origin`, the check is uncached.
    ///
    /// Calls `stamp` only for a new check, so that times are in the order of numbers.
    pub(crate) fn check(
        &mut self,
        pin: &Pin,
        origin: Option<&Arc<Origin>>,
        stamp: impl FnOnce() -> Stamp,
    ) -> (Promise, bool) {
        let cached = origin.is_none();
        if cached && let Some(promise) = self.promises.get(pin) {
            return (promise.clone(), false);
        }
        if let Some(error) = &self.refusal {
            return (Promise::settled(Err(error.clone())), false);
        }
        let plugin = Arc::clone(&self.plugin);
        let pending = self.pending.len();
        if pending >= self.max_pending {
            let error = CheckError::overloaded(plugin, pending);
            return (Promise::settled(Err(error)), false);
        }
        let (promise, resolver) = Promise::new(plugin);
        if cached {
            self.promises.insert(pin.clone(), promise.clone());
        }
        let question = Question {
            pin: pin.clone(),
            origin: origin.cloned(),
        };
        let Stamp { nonce, asked } = stamp();
        let check = Pending {
            question,
            nonce,
            asked,
            resolver,
            has_calls: false,
        };
        self.pending.insert(self.next, check);
        self.next += 1;
        (promise, true)
    }

    /// Whether exactly one check waits to be sent.
    pub(crate) fn one_is_unsent(&self) -> bool {
        self.pending.range(self.unsent..).take(2).count() == 1
    }

    /// Removes every settled promise from the cache.
    pub(crate) fn clear(&mut self) {
        self.promises.retain(|_, promise| !promise.is_settled());
    }

    /// Refuses new checks with `error`. Removes and returns all pending checks, in the order of
    /// their requests.
    pub(crate) fn refuse(&mut self, error: CheckError) -> Vec<Taken> {
        self.refusal.get_or_insert(error);
        self.in_flight = 0;
        let pending = std::mem::take(&mut self.pending);
        pending.into_values().map(Taken::from).collect()
    }

    /// Returns the next check to send while fewer than `max_in_flight` are in flight.
    pub(crate) fn send_next(&mut self, max_in_flight: usize) -> Option<(CheckId, Question)> {
        if self.in_flight >= max_in_flight {
            return None;
        }
        let (&number, check) = self.pending.range(self.unsent..).next()?;
        self.unsent = number + 1;
        self.in_flight += 1;
        let nonce = check.nonce;
        Some((CheckId { number, nonce }, check.question.clone()))
    }

    /// Removes the check that a verdict settles, if it is in flight.
    pub(crate) fn take(&mut self, id: CheckId) -> Option<Taken> {
        self.in_flight(id)?;
        self.remove(id.number)
    }

    /// Removes every check that was requested at `cutoff` or before, sent or not.
    pub(crate) fn take_expired(&mut self, cutoff: Instant) -> Vec<Taken> {
        let expired: Vec<u64> = self
            .pending
            .iter()
            .take_while(|(_, check)| check.asked <= cutoff)
            .map(|(&number, _)| number)
            .collect();
        expired
            .into_iter()
            .filter_map(|number| self.remove(number))
            .collect()
    }

    /// Returns when the oldest pending check was requested.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let (_, check) = self.pending.first_key_value()?;
        Some(check.asked)
    }

    /// Records that the plugin makes a metadata call for a check, so that `take_ended_callers`
    /// returns the check when it is settled. Returns the question of the check, or `None` if the
    /// check is not in flight.
    pub(crate) fn register_call(&mut self, id: CheckId) -> Option<Question> {
        let check = self.in_flight(id)?;
        check.has_calls = true;
        Some(check.question.clone())
    }

    /// Returns the checks with metadata calls that were settled since the last call of this
    /// method.
    pub(crate) fn take_ended_callers(&mut self) -> Vec<CheckId> {
        std::mem::take(&mut self.ended_callers)
    }

    fn in_flight(&mut self, id: CheckId) -> Option<&mut Pending> {
        let check = self.pending.get_mut(&id.number)?;
        (id.number < self.unsent && check.nonce == id.nonce).then_some(check)
    }

    fn remove(&mut self, number: u64) -> Option<Taken> {
        let check = self.pending.remove(&number)?;
        if number < self.unsent {
            self.in_flight -= 1;
        }
        if check.has_calls {
            let nonce = check.nonce;
            self.ended_callers.push(CheckId { number, nonce });
        }
        Some(check.into())
    }
}

impl From<Pending> for Taken {
    fn from(check: Pending) -> Self {
        Self {
            resolver: check.resolver,
            origin: check.question.origin,
        }
    }
}

impl CheckId {
    /// Encodes the ID for the wire: 32 characters of URL-safe base64.
    pub(crate) fn to_wire(self) -> String {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.nonce.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes an ID that [`to_wire`](Self::to_wire) encoded, and nothing else.
    pub(crate) fn from_wire(id: &str) -> Option<Self> {
        let mut bytes = [0; 24];
        if id.len() != 32 {
            return None;
        }
        BASE64_URL_SAFE_NO_PAD.decode_slice(id, &mut bytes).ok()?;
        let (number, nonce) = bytes.split_at(8);
        Some(Self {
            number: u64::from_be_bytes(number.try_into().ok()?),
            nonce: u128::from_be_bytes(nonce.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::repository::MemoryRepository;

    const MAX_IN_FLIGHT: usize = 100;

    struct Fixture {
        checks: CheckCache,
        epoch: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                checks: CheckCache::new("policy".into(), 3),
                epoch: Instant::now(),
            }
        }

        fn stamp(&self, second: u64) -> impl FnOnce() -> Stamp + use<> {
            let asked = self.at(second);
            move || Stamp {
                nonce: u128::from(second) << 64 | 7,
                asked,
            }
        }

        fn ask(&mut self, package: &str, second: u64) -> Promise {
            let stamp = self.stamp(second);
            self.checks.check(&pin(package), None, stamp).0
        }

        fn ask_uncached(&mut self, origin: &Arc<Origin>, package: &str, second: u64) -> Promise {
            let stamp = self.stamp(second);
            self.checks.check(&pin(package), Some(origin), stamp).0
        }

        fn admit(&mut self, id: CheckId) {
            let taken = self.checks.take(id).expect("the check is in flight");
            taken.resolver.resolve(Ok(()));
        }

        fn at(&self, second: u64) -> Instant {
            self.epoch + Duration::from_secs(second)
        }

        fn send(&mut self) -> Option<CheckId> {
            self.checks.send_next(MAX_IN_FLIGHT).map(|(id, _)| id)
        }
    }

    fn pin(package: &str) -> Pin {
        Pin::new(package, &"a".repeat(40)).expect("a valid pin")
    }

    #[test]
    fn checks_are_sent_once_each_in_the_order_they_were_asked() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 0);
        fixture.ask("b", 0);
        let sent: Vec<_> = std::iter::from_fn(|| fixture.checks.send_next(MAX_IN_FLIGHT))
            .map(|(_, question)| question.pin.package().to_owned())
            .collect();
        assert_eq!(sent, ["a", "b"]);
    }

    #[test]
    fn at_the_limit_one_check_is_sent_for_each_that_is_settled() {
        let mut fixture = Fixture::new();
        for package in ["a", "b", "c"] {
            fixture.ask(package, 0);
        }
        let (first, _) = fixture.checks.send_next(1).expect("there is room");
        assert!(fixture.checks.send_next(1).is_none());
        fixture.admit(first);
        assert!(fixture.checks.send_next(1).is_some());
    }

    #[test]
    fn a_verdict_settles_only_a_check_in_flight_and_only_once() {
        let mut fixture = Fixture::new();
        let promise = fixture.ask("a", 1);
        let guessed = CheckId {
            number: 0,
            nonce: 1 << 64 | 7,
        };
        assert!(fixture.checks.take(guessed).is_none(), "not sent yet");
        let id = fixture.send().expect("one is unsent");
        let forged = CheckId {
            nonce: id.nonce ^ 1,
            ..id
        };
        assert!(fixture.checks.take(forged).is_none());
        fixture.admit(id);
        assert!(fixture.checks.take(id).is_none());
        assert!(promise.is_settled());
    }

    #[test]
    fn a_late_verdict_does_not_settle_a_newer_check_of_the_same_pin() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 0);
        let old = fixture.send().expect("one is unsent");
        fixture.admit(old);
        fixture.checks.clear();
        let newer = fixture.ask("a", 1);
        fixture.send().expect("one is unsent");
        assert!(fixture.checks.take(old).is_none());
        assert!(!newer.is_settled());
    }

    #[test]
    fn an_expired_check_is_no_longer_in_flight() {
        let mut fixture = Fixture::new();
        let (old, young) = (fixture.ask("a", 1), fixture.ask("b", 2));
        fixture.checks.send_next(1).expect("there is room");
        assert_eq!(fixture.checks.oldest(), Some(fixture.at(1)));
        drop(fixture.checks.take_expired(fixture.at(1)));
        assert!(old.is_settled() && !young.is_settled());
        assert!(fixture.checks.send_next(1).is_some());
    }

    #[test]
    fn a_check_that_expires_unsent_is_never_sent() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 1);
        drop(fixture.checks.take_expired(fixture.at(1)));
        assert!(fixture.send().is_none());
        assert_eq!(fixture.checks.in_flight, 0);
    }

    #[test]
    fn clearing_forgets_settled_checks_and_keeps_pending_ones() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 0);
        let pending = fixture.ask("b", 0);
        let id = fixture.send().expect("one is unsent");
        fixture.admit(id);
        fixture.checks.clear();
        assert!(!fixture.ask("a", 1).is_settled());
        assert!(fixture.ask("b", 1).same_as(&pending));
    }

    #[test]
    fn an_uncached_check_is_new_and_not_kept() {
        let mut fixture = Fixture::new();
        let own = Arc::new(Origin {
            service_url: "https://other.example.com".into(),
            repository: Arc::new(MemoryRepository::new()),
        });
        let kept = fixture.ask("a", 0);
        let [first, second] = [1, 2].map(|at| fixture.ask_uncached(&own, "a", at));
        assert!(!first.same_as(&kept) && !first.same_as(&second));
        assert!(fixture.ask("a", 3).same_as(&kept));

        let [id_of_kept, id, other] = [0; 3].map(|_| fixture.send().expect("one is unsent"));
        let mut origin = |id| fixture.checks.register_call(id).map(|check| check.origin);
        assert!(matches!(origin(id_of_kept), Some(None)));
        assert!(matches!(origin(id), Some(Some(origin)) if Arc::ptr_eq(&origin, &own)));
        fixture.admit(id);
        assert!(fixture.checks.register_call(id).is_none());
        assert!(first.is_settled() && !kept.is_settled() && !second.is_settled());
        fixture.admit(other);
        assert_eq!(Arc::strong_count(&own), 1, "no check holds it");
    }

    #[test]
    fn a_check_beyond_the_limit_fails_at_once_and_is_not_kept() {
        let mut fixture = Fixture::new();
        for package in ["a", "b", "c"] {
            fixture.ask(package, 0);
        }
        assert!(fixture.ask("d", 0).is_settled());
        let id = fixture.send().expect("one is unsent");
        fixture.admit(id);
        assert!(!fixture.ask("d", 0).is_settled());
    }

    #[test]
    fn after_the_end_known_checks_keep_their_promise_and_new_ones_are_refused() {
        let mut fixture = Fixture::new();
        let admitted = fixture.ask("a", 0);
        let id = fixture.send().expect("one is unsent");
        fixture.admit(id);
        let pending = fixture.ask("b", 0);
        let refused = fixture.checks.refuse(CheckError::aborted("policy"));
        assert_eq!(refused.len(), 1);
        drop(refused);
        assert!(fixture.ask("a", 1).same_as(&admitted));
        assert!(fixture.ask("b", 1).same_as(&pending));
        assert!(fixture.ask("c", 1).is_settled());
        assert!(fixture.send().is_none());
    }

    #[test]
    fn only_the_end_of_a_check_with_metadata_calls_is_reported() {
        let mut fixture = Fixture::new();
        for package in ["a", "b"] {
            fixture.ask(package, 0);
        }
        let [caller, other] = [0; 2].map(|_| fixture.send().expect("one is unsent"));
        assert!(fixture.checks.register_call(caller).is_some());
        fixture.admit(other);
        assert_eq!(fixture.checks.take_ended_callers(), []);
        fixture.admit(caller);
        assert_eq!(fixture.checks.take_ended_callers(), [caller]);
        assert_eq!(fixture.checks.take_ended_callers(), []);
    }

    #[test]
    fn only_an_id_of_this_host_is_decoded() {
        let id = CheckId {
            number: 3,
            nonce: u128::MAX - 5,
        };
        assert_eq!(CheckId::from_wire(&id.to_wire()), Some(id));
        for foreign in ["", "short", &"=".repeat(32), &"a".repeat(33)] {
            assert_eq!(CheckId::from_wire(foreign), None);
        }
    }
}

//! The promise cache: what was asked, what is undecided, what was answered.
//!
//! No lock, no task, no clock: times are handed in and compared, that is all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use admission_proto::Pin;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::origin::Origin;
use super::promise::{Promise, Resolver};

/// Every promise of one plugin, and which of them are undecided.
#[derive(Default)]
pub(crate) struct Checks {
    promises: HashMap<Pin, Promise>,
    /// By number, which is also the order in which they were asked and are sent.
    undecided: BTreeMap<u64, Undecided>,
    /// Number of the next check.
    next: u64,
    /// First number that was not sent yet.
    unsent: u64,
    /// How many undecided checks were sent.
    out: usize,
}

struct Undecided {
    question: Question,
    /// Makes the ID unguessable.
    nonce: u128,
    asked: Instant,
    resolver: Resolver,
}

/// What a check asks.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) pin: Pin,
    /// Where the package comes from, if the check has its own notion of that: it is asked
    /// anew, and its promise is not kept here.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// A check that was taken out, to be settled with no lock held.
pub(crate) struct Taken {
    pub(crate) resolver: Resolver,
    /// To be dropped with no lock held either: what is in it is not ours.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// Names one check on the wire: its number and a random part.
///
/// Never reused, so a late verdict cannot decide a newer check of the same pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CheckId {
    number: u64,
    nonce: u128,
}

impl Checks {
    /// Returns the promise of `pin`, pending or settled.
    pub(crate) fn get(&self, pin: &Pin) -> Option<&Promise> {
        self.promises.get(pin)
    }

    /// Adds a check that was asked at `asked`, after all that were asked before. Keeps its
    /// promise unless it has an origin of its own.
    pub(crate) fn ask(
        &mut self,
        question: Question,
        nonce: u128,
        asked: Instant,
        plugin: &Arc<str>,
    ) -> Promise {
        let (promise, resolver) = Promise::new(Arc::clone(plugin));
        if question.origin.is_none() {
            self.promises.insert(question.pin.clone(), promise.clone());
        }
        let check = Undecided {
            question,
            nonce,
            asked,
            resolver,
        };
        self.undecided.insert(self.next, check);
        self.next += 1;
        promise
    }

    /// Takes the next check to be sent while fewer than `window` are out.
    pub(crate) fn send_next(&mut self, window: usize) -> Option<(CheckId, Question)> {
        if self.out >= window {
            return None;
        }
        let (&number, check) = self.undecided.range(self.unsent..).next()?;
        self.unsent = number + 1;
        self.out += 1;
        let nonce = check.nonce;
        Some((CheckId { number, nonce }, check.question.clone()))
    }

    /// Takes the check that is to be settled with a verdict, if there is such a check
    /// and it is undecided.
    pub(crate) fn decide(&mut self, id: CheckId) -> Option<Taken> {
        self.is_out(id).then(|| self.remove(id.number))?
    }

    /// Tells whether the check was sent and is undecided.
    pub(crate) fn is_out(&self, id: CheckId) -> bool {
        self.out(id).is_some()
    }

    /// Returns the origin that the check has of its own, if it is out and has one.
    pub(crate) fn origin(&self, id: CheckId) -> Option<&Arc<Origin>> {
        self.out(id)?.question.origin.as_ref()
    }

    /// Takes every check asked at `cutoff` or before, sent or not.
    pub(crate) fn expire(&mut self, cutoff: Instant) -> Vec<Taken> {
        let expired: Vec<u64> = self
            .undecided
            .iter()
            .take_while(|(_, check)| check.asked <= cutoff)
            .map(|(&number, _)| number)
            .collect();
        expired
            .into_iter()
            .filter_map(|number| self.remove(number))
            .collect()
    }

    /// Returns when the check that waits longest was asked.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let (_, check) = self.undecided.first_key_value()?;
        Some(check.asked)
    }

    /// Takes every check that is undecided, in the order in which they were asked.
    pub(crate) fn take_undecided(&mut self) -> Vec<Taken> {
        self.out = 0;
        let undecided = std::mem::take(&mut self.undecided);
        undecided.into_values().map(Taken::from).collect()
    }

    /// Returns how many checks are undecided.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided.len()
    }

    /// Forgets every promise that is settled.
    pub(crate) fn clear(&mut self) {
        self.promises.retain(|_, promise| !promise.is_settled());
    }

    fn out(&self, id: CheckId) -> Option<&Undecided> {
        let check = self.undecided.get(&id.number)?;
        (id.number < self.unsent && check.nonce == id.nonce).then_some(check)
    }

    fn remove(&mut self, number: u64) -> Option<Taken> {
        let check = self.undecided.remove(&number)?;
        if number < self.unsent {
            self.out -= 1;
        }
        Some(check.into())
    }
}

impl From<Undecided> for Taken {
    fn from(check: Undecided) -> Self {
        Self {
            resolver: check.resolver,
            origin: check.question.origin,
        }
    }
}

impl CheckId {
    /// Spells it as it stands on the wire: 32 characters of URL-safe base64.
    pub(crate) fn to_wire(self) -> String {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.nonce.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`to_wire`](Self::to_wire) has spelled, and nothing else.
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

#[cfg(all(test, not(admission_model)))]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::repository::MemoryRepository;

    const WINDOW: usize = 100;

    struct Fixture {
        checks: Checks,
        plugin: Arc<str>,
        epoch: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                checks: Checks::default(),
                plugin: "policy".into(),
                epoch: Instant::now(),
            }
        }

        fn ask(&mut self, package: &str, second: u64) -> Promise {
            self.ask_of(None, package, second)
        }

        fn ask_of(&mut self, origin: Option<Arc<Origin>>, package: &str, second: u64) -> Promise {
            let pin = pin(package);
            let nonce = u128::from(second) << 64 | 7;
            let at = self.at(second);
            let question = Question { pin, origin };
            self.checks.ask(question, nonce, at, &self.plugin)
        }

        fn admit(&mut self, id: CheckId) {
            let decided = self.checks.decide(id).expect("it is out");
            decided.resolver.resolve(Ok(()));
        }

        fn at(&self, second: u64) -> Instant {
            self.epoch + Duration::from_secs(second)
        }

        fn send(&mut self) -> Option<CheckId> {
            self.checks.send_next(WINDOW).map(|(id, _)| id)
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
        let sent: Vec<_> = std::iter::from_fn(|| fixture.checks.send_next(WINDOW))
            .map(|(_, question)| question.pin.package().to_owned())
            .collect();
        assert_eq!(sent, ["a", "b"]);
    }

    #[test]
    fn a_window_that_is_full_lets_one_out_for_each_that_is_decided() {
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
    fn a_verdict_decides_only_what_is_out_and_only_once() {
        let mut fixture = Fixture::new();
        let promise = fixture.ask("a", 1);
        let guessed = CheckId {
            number: 0,
            nonce: 1 << 64 | 7,
        };
        assert!(fixture.checks.decide(guessed).is_none(), "not sent yet");
        let id = fixture.send().expect("one is unsent");
        let forged = CheckId {
            nonce: id.nonce ^ 1,
            ..id
        };
        assert!(fixture.checks.decide(forged).is_none());
        fixture.admit(id);
        assert!(fixture.checks.decide(id).is_none());
        assert!(promise.is_settled());
    }

    #[test]
    fn a_late_verdict_does_not_decide_a_newer_check_of_the_same_pin() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 0);
        let old = fixture.send().expect("one is unsent");
        fixture.admit(old);
        fixture.checks.clear();
        let newer = fixture.ask("a", 1);
        fixture.send().expect("one is unsent");
        assert!(fixture.checks.decide(old).is_none());
        assert!(!newer.is_settled());
    }

    #[test]
    fn what_expires_frees_its_place_in_the_window() {
        let mut fixture = Fixture::new();
        let (old, young) = (fixture.ask("a", 1), fixture.ask("b", 2));
        fixture.checks.send_next(1).expect("there is room");
        assert_eq!(fixture.checks.oldest(), Some(fixture.at(1)));
        fixture
            .checks
            .expire(fixture.at(1))
            .into_iter()
            .for_each(drop);
        assert!(old.is_settled() && !young.is_settled());
        assert!(fixture.checks.send_next(1).is_some());
    }

    #[test]
    fn what_expires_unsent_is_never_sent() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 1);
        fixture
            .checks
            .expire(fixture.at(1))
            .into_iter()
            .for_each(drop);
        assert!(fixture.send().is_none());
        assert_eq!(fixture.checks.out, 0);
    }

    #[test]
    fn clearing_forgets_what_is_settled_and_keeps_what_is_pending() {
        let mut fixture = Fixture::new();
        fixture.ask("a", 0);
        let pending = fixture.ask("b", 0);
        let id = fixture.send().expect("one is unsent");
        fixture.admit(id);
        fixture.checks.clear();
        assert!(fixture.checks.get(&pin("a")).is_none());
        assert!(
            fixture
                .checks
                .get(&pin("b"))
                .expect("kept")
                .same_as(&pending)
        );
    }

    #[test]
    fn a_check_with_an_origin_of_its_own_is_asked_anew_and_not_kept() {
        let mut fixture = Fixture::new();
        let own = Arc::new(Origin {
            service_url: "https://other.example.com".into(),
            repository: Arc::new(MemoryRepository::new()),
        });
        let kept = fixture.ask("a", 0);
        let [first, second] = [1, 2].map(|at| fixture.ask_of(Some(Arc::clone(&own)), "a", at));
        assert!(!first.same_as(&kept) && !first.same_as(&second));
        assert!(fixture.checks.get(&pin("a")).expect("kept").same_as(&kept));

        let [id_of_kept, id, other] = [0; 3].map(|_| fixture.send().expect("one is unsent"));
        assert!(fixture.checks.origin(id_of_kept).is_none());
        assert!(Arc::ptr_eq(fixture.checks.origin(id).expect("out"), &own));
        fixture.admit(id);
        assert!(fixture.checks.origin(id).is_none(), "it is settled");
        assert!(first.is_settled() && !kept.is_settled() && !second.is_settled());
        fixture.admit(other);
        assert_eq!(Arc::strong_count(&own), 1, "nothing is left of them");
    }

    #[test]
    fn an_id_is_read_back_and_nothing_else_is() {
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

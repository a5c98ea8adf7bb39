//! Checks and verdicts: asked once, sent once, decided once.

use std::sync::Arc;

use loom::thread;

use crate::error::{CheckError, PluginError};
use crate::explore::{explore, join};
use crate::plugin::life::Asked;
use crate::repository::Repository;
use crate::scene::{admit, ask, ask_anew, asker, at, failed, life, sent, supervisor, waiter};

#[test]
fn a_pin_that_two_ask_for_at_once_is_asked_once() {
    let answers = explore(|| {
        let life = life();
        let other = thread::spawn({
            let life = Arc::clone(&life);
            move || ask(&life, "a")
        });
        let here = ask(&life, "a");
        let there = join(other);
        assert!(here.promise.same_as(&there.promise));
        let (_, id) = sent(&life, "b");
        assert!(admit(&life, id), "the one check of `a` is out");
        (here.launches, there.launches, here.promise.is_settled())
    });
    assert_eq!(answers, [(false, true, true), (true, false, true)].into());
}

#[test]
fn a_pin_that_two_ask_for_anew_at_once_is_asked_twice() {
    let answers = explore(|| {
        let life = life();
        let other = thread::spawn({
            let life = Arc::clone(&life);
            move || ask_anew(&life, "a", Nobody)
        });
        let here = ask_anew(&life, "a", Nobody);
        let there = join(other);
        assert!(!here.promise.same_as(&there.promise));
        let kept = ask(&life, "a");
        assert!(!kept.launches && !kept.promise.same_as(&here.promise));
        (here.launches, there.launches)
    });
    assert_eq!(answers, [(false, true), (true, false)].into());
}

#[test]
fn every_check_is_sent_and_every_verdict_heard() {
    let answers = explore(|| {
        let life = life();
        let supervisor = supervisor(&life);
        let askers = [asker(&life, "a"), asker(&life, "b")];
        let [first, second] = askers.map(join);
        assert!(first.1 != second.1, "one of them launches the plugin");
        life.close(at(1));
        (first.0, second.0, join(supervisor))
    });
    assert_eq!(answers, [(Ok(()), Ok(()), 2)].into());
}

#[test]
fn of_two_verdicts_on_a_check_one_counts_and_the_other_is_counted() {
    let answers = explore(|| {
        let life = life();
        let (promise, id) = sent(&life, "a");
        let other = thread::spawn({
            let life = Arc::clone(&life);
            move || admit(&life, id)
        });
        let here = admit(&life, id);
        let there = join(other);
        (here, there, promise.is_settled(), life.strays())
    });
    assert_eq!(
        answers,
        [(false, true, true, 1), (true, false, true, 1)].into()
    );
}

#[test]
fn a_clear_amid_a_verdict_loses_no_waiter_and_no_later_verdict() {
    let answers = explore(|| {
        let life = life();
        let (old, id) = sent(&life, "a");
        let verdict = thread::spawn({
            let life = Arc::clone(&life);
            move || admit(&life, id)
        });
        let waiter = waiter(&old);
        life.clear();
        let Asked { promise: new, .. } = ask(&life, "a");
        assert!(join(verdict));
        assert_eq!(join(waiter), Ok(()));
        let again = new.same_as(&old);
        // A late verdict on the old check is none on the new one.
        assert!(!admit(&life, id));
        (again, new.is_settled(), life.strays())
    });
    assert_eq!(answers, [(false, false, 1), (true, true, 1)].into());
}

#[test]
fn a_check_expires_or_is_decided_and_never_both() {
    let answers = explore(|| {
        let life = life();
        let (promise, id) = sent(&life, "a");
        let waiter = waiter(&promise);
        let verdict = thread::spawn({
            let life = Arc::clone(&life);
            move || admit(&life, id)
        });
        let expired = life.expire(at(0));
        let count = expired.len();
        for check in expired {
            check.resolver.resolve(Err(CheckError::Plugin(LATE)));
        }
        (join(verdict), count, join(waiter), life.strays())
    });
    let in_time = (true, 0, Ok(()), 0);
    let late = (false, 1, failed(&LATE), 1);
    assert_eq!(answers, [in_time, late].into());
}

/// Is asked nothing.
struct Nobody;

impl Repository for Nobody {}

const LATE: PluginError = PluginError("late");

//! Ends: whoever asks, waits or answers meanwhile learns of it, once.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures_util::FutureExt as _;
use loom::thread;

use crate::error::PluginError;
use crate::explore::{block_on, explore, join};
use crate::plugin::checks::CheckId;
use crate::plugin::life::{Asked, Life, Order};
use crate::plugin::state::PluginState;
use crate::repository::Repository;
use crate::scene::{
    WINDOW, aborted, admit, ask, asker, at, failed, life, sent, sent_anew, supervisor, waiter,
};

const CRASH: PluginError = PluginError("crash");

#[test]
fn a_close_amid_checks_and_verdicts_leaves_nobody_waiting() {
    let answers = explore(|| {
        let life = life();
        let supervisor = supervisor(&life);
        let asker = asker(&life, "a");
        life.close(at(1));
        let (outcome, launches) = join(asker);
        let sent = join(supervisor);
        assert_eq!(life.state(), PluginState::Closed);
        (outcome, launches, sent)
    });
    let refused = (aborted(), false, 0);
    let unsent = (aborted(), true, 0);
    let undecided = (aborted(), true, 1);
    let admitted = (Ok(()), true, 1);
    assert_eq!(answers, [refused, unsent, undecided, admitted].into());
}

#[test]
fn a_close_decides_at_once_whether_there_is_a_plugin_to_end() {
    let answers = explore(|| {
        let life = life();
        let asker = asker(&life, "a");
        let other = thread::spawn({
            let life = Arc::clone(&life);
            move || life.close(at(2))
        });
        let idle = life.close(at(1));
        let idle = (idle, join(other));
        assert_eq!(life.kill_at(), Some(at(1)));
        let (outcome, launches) = join(asker);
        assert_eq!(outcome, aborted());
        (launches, idle)
    });
    let launched = (true, (false, false));
    let here = (false, (true, false));
    let there = (false, (false, true));
    assert_eq!(answers, [launched, here, there].into());
}

#[test]
fn a_failure_amid_a_verdict_settles_the_check_once() {
    let answers = explore(|| {
        let life = life();
        let (promise, id) = sent(&life, "a");
        let waiter = waiter(&promise);
        let verdict = thread::spawn({
            let life = Arc::clone(&life);
            move || admit(&life, id)
        });
        assert!(life.fail(&CRASH));
        (join(verdict), join(waiter), life.strays())
    });
    let before = (true, Ok(()), 0);
    let after = (false, failed(&CRASH), 1);
    assert_eq!(answers, [before, after].into());
}

#[test]
fn of_a_failure_and_a_close_the_first_is_what_all_learn() {
    let answers = explore(|| {
        let life = life();
        let Asked { promise, .. } = ask(&life, "a");
        let failure = thread::spawn({
            let life = Arc::clone(&life);
            move || life.fail(&CRASH)
        });
        let asker = asker(&life, "b");
        assert!(!life.close(at(1)), "it was launched");
        let (failed_first, (meanwhile, _)) = (join(failure), join(asker));
        let earlier = block_on(promise.wait());
        let later = block_on(ask(&life, "c").promise.wait());
        assert_eq!((&meanwhile, &later), (&earlier, &earlier));
        assert!(matches!(life.next_order(WINDOW), Order::End { .. }));
        (failed_first, earlier)
    });
    assert_eq!(answers, [(true, failed(&CRASH)), (false, aborted())].into());
}

#[test]
fn whoever_learns_of_the_end_may_ask_again_at_once() {
    let ends: [fn(&Life); 2] = [
        |life| assert!(!life.close(at(1))),
        |life| assert!(life.fail(&CRASH)),
    ];
    for end in ends {
        let answers = explore(move || {
            let life = life();
            let Asked { promise, .. } = ask(&life, "a");
            let mut wait = promise.wait();
            let asks = Waker::from(Arc::new(AsksAgain(Arc::clone(&life))));
            let waits = wait
                .poll_unpin(&mut Context::from_waker(&asks))
                .is_pending();
            end(&life);
            waits && promise.is_settled()
        });
        assert_eq!(answers, [true].into());
    }
}

#[test]
fn whoever_gets_back_what_a_check_brought_along_may_ask_again_at_once() {
    let ends: [fn(&Life, CheckId); 4] = [
        |life, _| assert!(!life.close(at(1))),
        |life, _| assert!(life.fail(&CRASH)),
        |life, id| assert!(admit(life, id)),
        |life, _| assert_eq!(life.expire(at(0)).len(), 1),
    ];
    for end in ends {
        let answers = explore(move || {
            let life = life();
            let (promise, id) = sent_anew(&life, "a", AsksAgain(Arc::clone(&life)));
            end(&life, id);
            // The check held the life, and the life the check.
            Arc::strong_count(&life) == 1 && promise.is_settled()
        });
        assert_eq!(answers, [true].into());
    }
}

/// Asks about another pin when it is woken, or let go of.
struct AsksAgain(Arc<Life>);

impl Repository for AsksAgain {}

impl Drop for AsksAgain {
    fn drop(&mut self) {
        ask(&self.0, "b");
    }
}

impl Wake for AsksAgain {
    fn wake(self: Arc<Self>) {
        assert!(ask(&self.0, "b").promise.is_settled());
    }
}

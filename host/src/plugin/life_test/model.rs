//! What the life of a plugin must look like from outside, in as few words as possible.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

use crate::plugin::PluginState;

/// Pins that are asked about: few, so that they are asked about again, and more than may
/// be undecided.
pub(super) const PINS: usize = 6;

/// Checks that may be undecided at once.
pub(super) const MAX_UNDECIDED: usize = 4;

/// When a plugin that has failed is killed, unless it is closed with a shorter grace.
pub(super) const FAILED_KILL_AT: u64 = 5;

/// The codes that verdicts have: an allow, a denial, another one, and one that is none.
const CODES: [i32; 4] = [0, 9, 7, 12_345];

/// What a life is expected to be.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) state: PluginState,
    /// Why it is broken.
    error: Option<u8>,
    pub(super) kill_at: Option<u64>,
    /// Every check that was ever taken; its place is its number.
    pub(super) checks: Vec<Check>,
    /// The check of every pin that is remembered.
    cache: HashMap<usize, usize>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) strays: u64,
    /// What the last step is expected to have returned.
    pub(super) reply: Reply,
}

#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) pin: usize,
    /// Whether it has an origin of its own.
    pub(super) anew: bool,
    pub(super) asked: u64,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Unsent,
    Out,
    Settled(Answer),
}

/// What a check ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// A verdict of this code.
    Verdict(i32),
    Aborted,
    /// The error of this number.
    Failed(u8),
    TimedOut,
    Overloaded,
}

/// Somebody who waits for a check, or has given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) check: usize,
    pub(super) gave_up: bool,
    pub(super) woken: bool,
}

/// One thing that happens. Numbers of checks and waiters are taken modulo how many there
/// are, and nothing happens if there are none.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Ask {
        pin: usize,
    },
    AskAnew {
        pin: usize,
    },
    /// The supervisor asks what to do, and may send.
    Order {
        window: usize,
    },
    Verdict {
        id: Id,
        code: i32,
    },
    Connect,
    Fail {
        error: u8,
    },
    Close {
        kill_at: u64,
    },
    Clear,
    Expire {
        cutoff: u64,
    },
    Wait {
        check: usize,
    },
    GiveUp {
        waiter: usize,
    },
}

/// The ID in a verdict.
#[derive(Debug, Clone, Copy)]
pub(super) enum Id {
    /// The right one of a check, sent or not.
    Of(usize),
    /// With the number of a check, and another random part.
    Forged(usize),
    /// With the number of a check that was not asked.
    Future,
    /// Nothing that the host can have written.
    Garbled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Nothing,
    /// The promise of this check.
    Asked {
        check: usize,
        launches: bool,
    },
    /// A promise that is settled and belongs to no check.
    Refused(Answer),
    Close,
    Send {
        check: usize,
        pin: usize,
        anew: bool,
    },
    Idle {
        oldest: Option<u64>,
    },
    /// Whether what was tried was done.
    Done(bool),
    Expired(usize),
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        let idle = Self {
            state: PluginState::Idle,
            error: None,
            kill_at: None,
            checks: Vec::new(),
            cache: HashMap::new(),
            waiters: Vec::new(),
            strays: 0,
            reply: Reply::Nothing,
        };
        Just(idle).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let some = || 0..1_000_usize;
        let id = prop_oneof![
            8 => some().prop_map(Id::Of),
            1 => some().prop_map(Id::Forged),
            1 => Just(Id::Future),
            1 => Just(Id::Garbled),
        ];
        let verdict = (id, select(&CODES[..]));
        prop_oneof![
            12 => (0..PINS).prop_map(|pin| Step::Ask { pin }),
            4 => (0..PINS).prop_map(|pin| Step::AskAnew { pin }),
            16 => (0..4_usize).prop_map(|window| Step::Order { window }),
            16 => verdict.prop_map(|(id, code)| Step::Verdict { id, code }),
            8 => some().prop_map(|check| Step::Wait { check }),
            4 => some().prop_map(|waiter| Step::GiveUp { waiter }),
            4 => Just(Step::Clear),
            2 => Just(Step::Connect),
            2 => (0..20_u64).prop_map(|cutoff| Step::Expire { cutoff }),
            // Little happens after these.
            1 => any::<u8>().prop_map(|error| Step::Fail { error }),
            1 => (0..9_u64).prop_map(|kill_at| Step::Close { kill_at }),
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        model.reply = model.step(*step);
        model
    }
}

impl Model {
    fn step(&mut self, step: Step) -> Reply {
        match step {
            Step::Ask { pin } => match self.cache.get(&pin) {
                Some(&check) => Reply::Asked {
                    check,
                    launches: false,
                },
                None => self.ask(pin, false),
            },
            Step::AskAnew { pin } => self.ask(pin, true),
            Step::Order { window } => self.order(window),
            Step::Verdict { id, code } => self.verdict(id, code),
            Step::Connect => {
                let launching = self.state == PluginState::Launching;
                if launching {
                    self.state = PluginState::Running;
                }
                Reply::Done(launching)
            }
            Step::Fail { error } => {
                let alive = self.end(PluginState::Broken, Answer::Failed(error));
                if alive {
                    self.kill_at = Some(FAILED_KILL_AT);
                    self.error = Some(error);
                }
                Reply::Done(alive)
            }
            Step::Close { kill_at } => {
                let idle = self.state == PluginState::Idle;
                self.end(PluginState::Closed, Answer::Aborted);
                self.kill_at = Some(self.kill_at.map_or(kill_at, |other| other.min(kill_at)));
                Reply::Done(idle)
            }
            Step::Clear => {
                let checks = &self.checks;
                self.cache
                    .retain(|_, &mut check| checks[check].is_undecided());
                Reply::Nothing
            }
            Step::Expire { cutoff } => {
                let late: Vec<_> = self
                    .undecided()
                    .filter(|&check| self.checks[check].asked <= cutoff)
                    .collect();
                late.iter()
                    .for_each(|&check| self.settle(check, Answer::TimedOut));
                Reply::Expired(late.len())
            }
            Step::Wait { check } => self.wait(check),
            Step::GiveUp { waiter } => {
                if let Some(waiter) = one_of(self.waiters.len(), waiter) {
                    self.waiters[waiter].gave_up = true;
                }
                Reply::Nothing
            }
        }
    }

    fn ask(&mut self, pin: usize, anew: bool) -> Reply {
        match (self.state, self.error) {
            (PluginState::Broken, Some(error)) => return Reply::Refused(Answer::Failed(error)),
            (PluginState::Closed, _) => return Reply::Refused(Answer::Aborted),
            _ if self.undecided().count() == MAX_UNDECIDED => {
                return Reply::Refused(Answer::Overloaded);
            }
            _ => {}
        }
        let check = self.checks.len();
        self.checks.push(Check {
            pin,
            anew,
            asked: time_of(check),
            phase: Phase::Unsent,
        });
        if !anew {
            self.cache.insert(pin, check);
        }
        let launches = self.state == PluginState::Idle;
        if launches {
            self.state = PluginState::Launching;
        }
        Reply::Asked { check, launches }
    }

    fn order(&mut self, window: usize) -> Reply {
        if self.kill_at.is_some() {
            return Reply::Close;
        }
        let in_phase = |phase| self.checks.iter().filter(move |check| check.phase == phase);
        if in_phase(Phase::Out).count() < window
            && let Some(check) = self
                .checks
                .iter()
                .position(|check| check.phase == Phase::Unsent)
        {
            self.checks[check].phase = Phase::Out;
            let Check { pin, anew, .. } = self.checks[check];
            return Reply::Send { check, pin, anew };
        }
        let oldest = self.undecided().map(|check| self.checks[check].asked).min();
        let connected = self.state == PluginState::Running;
        Reply::Idle {
            oldest: oldest.filter(|_| connected),
        }
    }

    fn verdict(&mut self, id: Id, code: i32) -> Reply {
        if let Id::Of(check) = id
            && let Some(check) = one_of(self.checks.len(), check)
            && self.checks[check].phase == Phase::Out
        {
            self.settle(check, Answer::Verdict(code));
            return Reply::Done(true);
        }
        // After the end no verdict is counted.
        self.strays += u64::from(self.kill_at.is_none());
        Reply::Done(false)
    }

    fn wait(&mut self, check: usize) -> Reply {
        let Some(check) = one_of(self.checks.len(), check) else {
            return Reply::Nothing;
        };
        let pending = self.checks[check].is_undecided();
        if pending {
            self.waiters.push(Waiter {
                check,
                gave_up: false,
                woken: false,
            });
        }
        Reply::Done(pending)
    }

    /// Ends the life, unless it has ended; returns whether it had not.
    fn end(&mut self, state: PluginState, answer: Answer) -> bool {
        if matches!(self.state, PluginState::Broken | PluginState::Closed) {
            return false;
        }
        self.state = state;
        let undecided: Vec<_> = self.undecided().collect();
        undecided
            .into_iter()
            .for_each(|check| self.settle(check, answer));
        true
    }

    fn settle(&mut self, check: usize, answer: Answer) {
        self.checks[check].phase = Phase::Settled(answer);
        for waiter in &mut self.waiters {
            waiter.woken |= waiter.check == check && !waiter.gave_up;
        }
    }

    fn undecided(&self) -> impl Iterator<Item = usize> {
        (0..self.checks.len()).filter(|&check| self.checks[check].is_undecided())
    }
}

impl Check {
    fn is_undecided(&self) -> bool {
        !matches!(self.phase, Phase::Settled(_))
    }
}

/// When a check was asked, in seconds: some at the same time as the one before.
pub(super) fn time_of(check: usize) -> u64 {
    check as u64 / 2
}

/// Chooses one of `count`, if there are any.
pub(super) fn one_of(count: usize, choice: usize) -> Option<usize> {
    choice.checked_rem(count)
}

//! A model of the life of a plugin: what callers and the supervisor observe.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

use crate::plugin::PluginState;

/// Number of pins: few, so that each is checked several times, and more than may be pending.
pub(super) const PINS: usize = 6;

/// Checks that may be pending at once.
pub(super) const MAX_PENDING: usize = 4;

/// When a plugin that has failed is killed, unless it is closed with a shorter grace.
pub(super) const FAILED_KILL_AT: u64 = 5;

/// The codes of verdicts: OK, FAILED_PRECONDITION, another known code, an unknown code.
const CODES: [i32; 4] = [0, 9, 7, 12_345];

/// The expected state of a life.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) state: PluginState,
    /// The error of a broken plugin.
    error: Option<u8>,
    pub(super) kill_at: Option<u64>,
    /// Every accepted check; its index is its number.
    pub(super) checks: Vec<Check>,
    /// The check of every cached pin.
    cache: HashMap<usize, usize>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) ignored: u64,
    /// The expected result of the last step.
    pub(super) reply: Reply,
}

#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) pin: usize,
    /// Whether the check is uncached.
    pub(super) uncached: bool,
    pub(super) asked: u64,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Unsent,
    InFlight,
    Settled(ModelOutcome),
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelOutcome {
    /// A verdict with this code.
    Verdict(i32),
    Aborted,
    /// The error with this number.
    Failed(u8),
    TimedOut,
    Overloaded,
}

/// A wait for a check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) check: usize,
    pub(super) cancelled: bool,
    pub(super) woken: bool,
}

/// One operation. Numbers of checks and waiters are taken modulo their count; without any,
/// nothing happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Check {
        pin: usize,
    },
    CheckUncached {
        pin: usize,
    },
    /// The supervisor takes its next order, which may be a check to send.
    Order {
        max_in_flight: usize,
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
    Cancel {
        waiter: usize,
    },
}

/// The ID in a verdict.
#[derive(Debug, Clone, Copy)]
pub(super) enum Id {
    /// The ID of a check, sent or not.
    Of(usize),
    /// The number of a check with another random part.
    Forged(usize),
    /// The number of the next check, which was not requested yet.
    Future,
    /// Not an ID that the host has encoded.
    Garbled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Nothing,
    /// The promise of this check.
    Promise {
        check: usize,
        launches: bool,
    },
    /// A settled promise of no check.
    Refused(ModelOutcome),
    Close,
    Send {
        check: usize,
        pin: usize,
        uncached: bool,
    },
    Idle {
        oldest: Option<u64>,
    },
    /// Whether the operation had an effect.
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
            ignored: 0,
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
            12 => (0..PINS).prop_map(|pin| Step::Check { pin }),
            4 => (0..PINS).prop_map(|pin| Step::CheckUncached { pin }),
            16 => (0..4_usize).prop_map(|max_in_flight| Step::Order { max_in_flight }),
            16 => verdict.prop_map(|(id, code)| Step::Verdict { id, code }),
            8 => some().prop_map(|check| Step::Wait { check }),
            4 => some().prop_map(|waiter| Step::Cancel { waiter }),
            4 => Just(Step::Clear),
            2 => Just(Step::Connect),
            2 => (0..20_u64).prop_map(|cutoff| Step::Expire { cutoff }),
            // These end the life, so little happens after them.
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
            Step::Check { pin } => match self.cache.get(&pin) {
                Some(&check) => Reply::Promise {
                    check,
                    launches: false,
                },
                None => self.check(pin, false),
            },
            Step::CheckUncached { pin } => self.check(pin, true),
            Step::Order { max_in_flight } => self.order(max_in_flight),
            Step::Verdict { id, code } => self.verdict(id, code),
            Step::Connect => {
                let launching = self.state == PluginState::Launching;
                if launching {
                    self.state = PluginState::Running;
                }
                Reply::Done(launching)
            }
            Step::Fail { error } => {
                let alive = self.end(PluginState::Broken, ModelOutcome::Failed(error));
                if alive {
                    self.kill_at = Some(FAILED_KILL_AT);
                    self.error = Some(error);
                }
                Reply::Done(alive)
            }
            Step::Close { kill_at } => {
                let idle = self.state == PluginState::Idle;
                self.end(PluginState::Closed, ModelOutcome::Aborted);
                self.kill_at = Some(self.kill_at.map_or(kill_at, |other| other.min(kill_at)));
                Reply::Done(idle)
            }
            Step::Clear => {
                let checks = &self.checks;
                self.cache
                    .retain(|_, &mut check| checks[check].is_pending());
                Reply::Nothing
            }
            Step::Expire { cutoff } => {
                let late: Vec<_> = self
                    .pending()
                    .filter(|&check| self.checks[check].asked <= cutoff)
                    .collect();
                late.iter()
                    .for_each(|&check| self.settle(check, ModelOutcome::TimedOut));
                Reply::Expired(late.len())
            }
            Step::Wait { check } => self.wait(check),
            Step::Cancel { waiter } => {
                if let Some(waiter) = one_of(self.waiters.len(), waiter) {
                    self.waiters[waiter].cancelled = true;
                }
                Reply::Nothing
            }
        }
    }

    fn check(&mut self, pin: usize, uncached: bool) -> Reply {
        match (self.state, self.error) {
            (PluginState::Broken, Some(error)) => {
                return Reply::Refused(ModelOutcome::Failed(error));
            }
            (PluginState::Closed, _) => return Reply::Refused(ModelOutcome::Aborted),
            _ if self.pending().count() == MAX_PENDING => {
                return Reply::Refused(ModelOutcome::Overloaded);
            }
            _ => {}
        }
        let check = self.checks.len();
        self.checks.push(Check {
            pin,
            uncached,
            asked: time_of(check),
            phase: Phase::Unsent,
        });
        if !uncached {
            self.cache.insert(pin, check);
        }
        let launches = self.state == PluginState::Idle;
        if launches {
            self.state = PluginState::Launching;
        }
        Reply::Promise { check, launches }
    }

    fn order(&mut self, max_in_flight: usize) -> Reply {
        if self.kill_at.is_some() {
            return Reply::Close;
        }
        let in_phase = |phase| self.checks.iter().filter(move |check| check.phase == phase);
        if in_phase(Phase::InFlight).count() < max_in_flight
            && let Some(check) = self
                .checks
                .iter()
                .position(|check| check.phase == Phase::Unsent)
        {
            self.checks[check].phase = Phase::InFlight;
            let Check { pin, uncached, .. } = self.checks[check];
            return Reply::Send {
                check,
                pin,
                uncached,
            };
        }
        let oldest = self.pending().map(|check| self.checks[check].asked).min();
        let connected = self.state == PluginState::Running;
        Reply::Idle {
            oldest: oldest.filter(|_| connected),
        }
    }

    fn verdict(&mut self, id: Id, code: i32) -> Reply {
        if let Id::Of(check) = id
            && let Some(check) = one_of(self.checks.len(), check)
            && self.checks[check].phase == Phase::InFlight
        {
            self.settle(check, ModelOutcome::Verdict(code));
            return Reply::Done(true);
        }
        // After the end no verdict is counted.
        self.ignored += u64::from(self.kill_at.is_none());
        Reply::Done(false)
    }

    fn wait(&mut self, check: usize) -> Reply {
        let Some(check) = one_of(self.checks.len(), check) else {
            return Reply::Nothing;
        };
        let pending = self.checks[check].is_pending();
        if pending {
            self.waiters.push(Waiter {
                check,
                cancelled: false,
                woken: false,
            });
        }
        Reply::Done(pending)
    }

    /// Ends the life, unless it has ended before. Returns whether this call ended it.
    fn end(&mut self, state: PluginState, outcome: ModelOutcome) -> bool {
        if matches!(self.state, PluginState::Broken | PluginState::Closed) {
            return false;
        }
        self.state = state;
        let pending: Vec<_> = self.pending().collect();
        pending
            .into_iter()
            .for_each(|check| self.settle(check, outcome));
        true
    }

    fn settle(&mut self, check: usize, outcome: ModelOutcome) {
        self.checks[check].phase = Phase::Settled(outcome);
        for waiter in &mut self.waiters {
            waiter.woken |= waiter.check == check && !waiter.cancelled;
        }
    }

    fn pending(&self) -> impl Iterator<Item = usize> {
        (0..self.checks.len()).filter(|&check| self.checks[check].is_pending())
    }
}

impl Check {
    fn is_pending(&self) -> bool {
        !matches!(self.phase, Phase::Settled(_))
    }
}

/// Time of the request of a check, in seconds. Two checks share each time.
pub(super) fn time_of(check: usize) -> u64 {
    check as u64 / 2
}

/// Chooses a number below `count`, unless that is 0.
pub(super) fn one_of(count: usize, choice: usize) -> Option<usize> {
    choice.checked_rem(count)
}

//! One plugin from its first check to its end.

use std::time::Duration;

use admission_host::{Host, Pin, Plugin, Promise};
use conformance::{GRACE, Mode, pin};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use crate::ledger::Ledger;

/// Checks that are pending for longer count as lost.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Fewest and most checks of one plugin: enough for several batches, so that a plugin that
/// crashes near the end has sent most verdicts.
const FEWEST: usize = 1_000;
const MOST: usize = 5_000;

/// How a plugin ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// It is closed after all verdicts.
    Closed,
    /// It is closed after this many outcomes.
    ClosedEarly(usize),
    /// Its handle is dropped after this many outcomes.
    Dropped(usize),
    /// It crashes in this way at the check with this number. All checks are requested at once.
    Dies(usize, &'static str),
    /// It crashes in this way at a check that is requested after this many outcomes.
    DiesAfter(usize, &'static str),
}

/// The ways in which the fixture can crash.
const DEATHS: [&str; 3] = ["exit", "abort", "kill"];

impl Ending {
    /// Chooses how a plugin ends after most of its `checks` checks.
    fn choose(random: &mut StdRng, checks: usize) -> Self {
        let late = random.random_range(checks * 19 / 20..checks);
        let death = DEATHS[random.random_range(0..DEATHS.len())];
        match random.random_range(0..10) {
            0 => Self::Closed,
            1 | 2 => Self::ClosedEarly(late),
            3 => Self::Dropped(late),
            4..=6 => Self::Dies(late, death),
            _ => Self::DiesAfter(late, death),
        }
    }

    /// Returns the number of outcomes after which the plugin must be ended.
    fn answers(self) -> Option<usize> {
        match self {
            Self::ClosedEarly(answers) | Self::Dropped(answers) | Self::DiesAfter(answers, _) => {
                Some(answers)
            }
            Self::Closed | Self::Dies(..) => None,
        }
    }
}

/// Starts a plugin, checks pins, ends the plugin, and adds every outcome to the ledger.
pub(crate) async fn run(
    host: &Host,
    mode: Mode,
    number: u64,
    random: &mut StdRng,
    ledger: &mut Ledger,
) {
    let checks = random.random_range(FEWEST..MOST);
    let ending = Ending::choose(random, checks);
    let plugin = host.plugin(mode.fixture(""));
    let checks = check_pins(&plugin, number, checks, ending, random);
    let wait = |(pin, promise): (Pin, Promise)| async move {
        let result = promise.wait().await;
        (pin, result)
    };
    let mut waiting: FuturesUnordered<_> = checks.into_iter().map(wait).collect();
    let mut plugin = Some(plugin);
    let mut answers = 0;
    let may_end = !matches!(ending, Ending::Closed);
    let everything = async {
        while let Some((pin, result)) = waiting.next().await {
            ledger.add(&pin, result, may_end);
            answers += 1;
            if ending.answers() == Some(answers) {
                waiting.extend(end_early(&mut plugin, ending, number).map(wait));
            }
        }
    };
    if tokio::time::timeout(TIMEOUT, everything).await.is_err() {
        ledger.lost += waiting.len() as u64;
    }
    drop(waiting);
    if let Some(plugin) = plugin {
        // Verdicts on checks that a close has aborted are late, not duplicate.
        if !matches!(ending, Ending::ClosedEarly(_)) {
            ledger.duplicate += plugin.ignored_input().verdicts;
        }
        plugin.close(GRACE).await;
    }
    ledger.plugins += 1;
    let dies = matches!(ending, Ending::Dies(..) | Ending::DiesAfter(..));
    ledger.killed += u64::from(dies);
}

/// Requests checks, some of them twice, cancels some waits and clears the cache.
fn check_pins(
    plugin: &Plugin,
    number: u64,
    checks: usize,
    ending: Ending,
    random: &mut StdRng,
) -> Vec<(Pin, Promise)> {
    let mut asked = Vec::with_capacity(checks);
    for n in 0..checks {
        let pin = match ending {
            Ending::Dies(at, way) if at == n => fatal(way, number),
            _ => pin(&format!("hash/{number}/{n}")),
        };
        let promise = plugin.check_admission(&pin);
        match random.next_u32() % 64 {
            0 => plugin.clear_cache(),
            1 => drop(promise.wait()),
            2 => {
                let again = plugin.check_admission(&pin);
                // It may be a new promise only if the first was settled and cleared.
                assert!(again.same_as(&promise) || promise.is_settled());
            }
            _ => {}
        }
        asked.push((pin, promise));
    }
    asked
}

/// Ends the plugin while checks are pending, or returns a new check that crashes it.
fn end_early(plugin: &mut Option<Plugin>, ending: Ending, number: u64) -> Option<(Pin, Promise)> {
    match (ending, &plugin) {
        (Ending::ClosedEarly(_), Some(plugin)) => {
            plugin.start_close(GRACE);
            None
        }
        (Ending::DiesAfter(_, way), Some(plugin)) => {
            let pin = fatal(way, number);
            let promise = plugin.check_admission(&pin);
            Some((pin, promise))
        }
        _ => {
            *plugin = None;
            None
        }
    }
}

/// Returns a pin that crashes the fixture.
fn fatal(way: &str, number: u64) -> Pin {
    pin(&format!("die/{way}/{number}"))
}

//! Lines and verdicts that wait for a line; performs no I/O.
//!
//! A host takes calls in any order. So what one check says goes out one after the other,
//! as the reference's handlers do it, and different checks do not wait for each other.

use std::collections::{HashMap, VecDeque};

use admission_proto::wire::plugin::{LogRequest, ResolveAdmissionRequest};

/// Who logs: the ID of an admission, or `None` for a thread or task that is no handler's.
pub(super) type Speaker = Option<String>;

/// What is to be said in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Spoken {
    /// A line of a speaker.
    Line(Speaker, LogRequest),
    /// The verdict on a check, which comes after its lines, and after those of nobody
    /// known, since they may be a helper's of the handler.
    Verdict(ResolveAdmissionRequest),
}

/// For each speaker with a line on its way, what waits for that.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    busy: HashMap<Speaker, VecDeque<Spoken>>,
    waiting: usize,
}

impl Lanes {
    /// Returns what is spoken if it may go now; keeps it otherwise. After a line went,
    /// [`arrived`](Self::arrived) is to be called.
    pub(super) fn enter(&mut self, spoken: Spoken) -> Option<Spoken> {
        if let Some(lane) = self.lane(&spoken) {
            lane.push_back(spoken);
            self.waiting += 1;
            return None;
        }
        if let Spoken::Line(speaker, _) = &spoken {
            self.busy.insert(speaker.clone(), VecDeque::new());
        }
        Some(spoken)
    }

    /// Takes note that the line of `speaker` has arrived. Returns what may go now: maybe
    /// verdicts, and then at most one line.
    pub(super) fn arrived(&mut self, speaker: &Speaker) -> Vec<Spoken> {
        let waited = self.busy.remove(speaker).unwrap_or_default();
        self.waiting -= waited.len();
        // Those after a line find its lane busy, and wait on.
        waited
            .into_iter()
            .filter_map(|spoken| self.enter(spoken))
            .collect()
    }

    /// Returns how much waits.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns where `spoken` has to wait.
    fn lane(&mut self, spoken: &Spoken) -> Option<&mut VecDeque<Spoken>> {
        if self.busy.is_empty() {
            return None;
        }
        match spoken {
            Spoken::Line(speaker, _) => self.busy.get_mut(speaker),
            Spoken::Verdict(verdict) => {
                let own = Some(verdict.admission_id.clone());
                let speaker = if self.busy.contains_key(&own) {
                    own
                } else {
                    None
                };
                self.busy.get_mut(&speaker)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(speaker: &str, message: &str) -> Spoken {
        let speaker = (!speaker.is_empty()).then(|| speaker.to_owned());
        Spoken::Line(
            speaker,
            LogRequest {
                severity: "info".into(),
                message: message.into(),
            },
        )
    }

    fn verdict(id: &str) -> Spoken {
        Spoken::Verdict(ResolveAdmissionRequest {
            admission_id: id.into(),
            status: None,
        })
    }

    fn speaker(name: &str) -> Speaker {
        Some(name.into())
    }

    /// Enters all. Returns what may go at once.
    fn enter(lanes: &mut Lanes, all: &[Spoken]) -> Vec<Spoken> {
        all.iter()
            .filter_map(|spoken| lanes.enter(spoken.clone()))
            .collect()
    }

    #[test]
    fn what_one_check_says_goes_in_order() {
        let mut lanes = Lanes::default();
        let all = [line("a", "1"), line("a", "2"), verdict("a")];
        assert_eq!(enter(&mut lanes, &all), all[..1]);
        assert_eq!(lanes.waiting(), 2);
        assert_eq!(lanes.arrived(&speaker("a")), all[1..2]);
        assert_eq!(lanes.arrived(&speaker("a")), all[2..]);
        assert_eq!(lanes.arrived(&speaker("a")), []);
        assert_eq!(lanes.waiting(), 0);
    }

    #[test]
    fn checks_do_not_wait_for_each_other() {
        let mut lanes = Lanes::default();
        let all = [line("a", "1"), line("b", "1"), verdict("c")];
        assert_eq!(enter(&mut lanes, &all), all);
    }

    #[test]
    fn a_verdict_waits_for_its_own_lines_and_for_those_of_nobody_known() {
        let mut lanes = Lanes::default();
        let all = [line("", "1"), line("a", "1"), verdict("a"), verdict("b")];
        assert_eq!(enter(&mut lanes, &all), all[..2]);
        assert_eq!(lanes.arrived(&speaker("a")), []);
        assert_eq!(lanes.waiting(), 2);
        assert_eq!(lanes.arrived(&None), [verdict("b"), verdict("a")]);
        let all = [line("", "1"), line("a", "1"), verdict("a")];
        assert_eq!(enter(&mut lanes, &all), all[..2]);
        assert_eq!(lanes.arrived(&None), []);
        assert_eq!(lanes.arrived(&speaker("a")), all[2..]);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of it, workload by workload and mode by mode.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::case::Mode;
use crate::ktap::{Outcome, ResultLine, VERSION_LINE};
use crate::soak::event::{Event, Reference, Round};
use crate::soak::workload;

/// What came of one VM.
#[derive(Debug, Serialize)]
pub struct Soaked {
    #[serde(serialize_with = "mode_name")]
    mode: Mode,
    /// Sums by workload, all of which are here.
    workloads: Vec<Sums>,
    /// Each part in a storm, in the order in which they ran.
    rounds: Vec<Round>,
    /// Rounds that the guest says it has told of, once all have run.
    told: Option<usize>,
    /// The step of a pass to go on with.
    next: Option<usize>,
    /// Why the VM is not to be trusted, with the evidence.
    pub bad_end: Option<String>,
}

/// The sums of a workload in one mode.
#[derive(Clone, Debug, Default, Serialize)]
struct Sums {
    workload: &'static str,
    rounds: u64,
    failed: u64,
    /// Different parts that have run.
    parts: usize,
    of_parts: usize,
    pages_over: u64,
    pages_back: u64,
    pages_by_fault: u64,
    pulls: u64,
    seconds: f64,
    seconds_without: f64,
}

/// What came of all.
#[derive(Debug, Serialize)]
pub struct Report {
    minutes: u64,
    /// The step of a pass that each mode began with.
    from: usize,
    modes: Vec<Soaked>,
}

impl Soaked {
    /// A VM in this mode in which nothing has run yet.
    pub fn new(mode: Mode) -> Self {
        let sums = |workload: &workload::Workload| Sums {
            workload: workload.name,
            of_parts: workload.parts.len(),
            ..Sums::default()
        };
        Soaked {
            mode,
            workloads: workload::ALL.iter().map(sums).collect(),
            rounds: Vec::new(),
            told: None,
            next: None,
            bad_end: None,
        }
    }

    /// Takes note of an event.
    pub fn event(&mut self, event: &Event, known: &mut BTreeMap<String, Reference>) {
        match event {
            Event::Reference { part, reference } => {
                known.insert(part.clone(), reference.clone());
            }
            Event::Progress(_) => {}
            Event::Round(round) => self.round(round),
            Event::End { rounds, next } => {
                self.told = Some(*rounds);
                self.next = Some(*next);
            }
        }
    }

    fn round(&mut self, round: &Round) {
        let is_new = !self.rounds.iter().any(|other| other.part == round.part);
        let mut all = self.workloads.iter_mut();
        if let Some(sums) = all.find(|sums| sums.workload == round.workload) {
            sums.rounds += 1;
            sums.failed += u64::from(!round.problems.is_empty());
            sums.parts += usize::from(is_new);
            sums.pages_over += round.storm.over.moved;
            sums.pages_back += round.storm.back.moved;
            sums.pages_by_fault += round.storm.by_fault;
            sums.pulls += round.storm.over.pulls + round.storm.back.pulls;
            sums.seconds += round.seconds;
            sums.seconds_without += round.seconds_without;
        }
        self.rounds.push(round.clone());
    }

    /// Results by name. A workload has passed if it ran and never came to anything else than without a
    /// storm; the VM, if it ended well and told all that it did.
    fn results(&self) -> Vec<(String, bool)> {
        let mut results: Vec<(String, bool)> = self
            .workloads
            .iter()
            .map(|sums| {
                let name = format!("{}.{}_computes_the_same", self.mode, sums.workload);
                (name, sums.rounds > 0 && sums.failed == 0)
            })
            .collect();
        let well = self.bad_end.is_none() && self.told == Some(self.rounds.len());
        results.push((format!("{}.the_vm_ends_well", self.mode), well));
        results
    }
}

impl Report {
    /// A report on storms of so many minutes each, which began with the step `from`.
    pub fn new(minutes: u64, from: usize, modes: Vec<Soaked>) -> Self {
        Report {
            minutes,
            from,
            modes,
        }
    }

    /// Whether nothing failed, in at least one mode.
    pub fn passed(&self) -> bool {
        let mut results = self.modes.iter().flat_map(Soaked::results);
        !self.modes.is_empty() && results.all(|(_, passed)| passed)
    }

    /// The results as KTAP.
    pub fn ktap(&self) -> String {
        let results: Vec<_> = self.modes.iter().flat_map(Soaked::results).collect();
        let mut text = format!("{VERSION_LINE}\n1..{}\n", results.len());
        for (index, (name, passed)) in results.iter().enumerate() {
            let outcome = if *passed {
                Outcome::Passed
            } else {
                Outcome::Failed
            };
            let line = ResultLine {
                number: index + 1,
                name,
                outcome: &outcome,
            };
            text.push_str(&format!("{line}\n"));
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<9} {:<8} {:>6} {:>6} {:>6} {:>11} {:>11} {:>11} {:>9} {:>9} {:>9}",
            "mode",
            "workload",
            "rounds",
            "failed",
            "parts",
            "pages over",
            "back",
            "by fault",
            "pulls",
            "s storm",
            "s without"
        )?;
        for soaked in &self.modes {
            for sums in &soaked.workloads {
                writeln!(
                    f,
                    "{:<9} {:<8} {:>6} {:>6} {:>6} {:>11} {:>11} {:>11} {:>9} {:>9.1} {:>9.1}",
                    soaked.mode.name(),
                    sums.workload,
                    sums.rounds,
                    sums.failed,
                    format!("{}/{}", sums.parts, sums.of_parts),
                    sums.pages_over,
                    sums.pages_back,
                    sums.pages_by_fault,
                    sums.pulls,
                    sums.seconds,
                    sums.seconds_without,
                )?;
            }
        }
        Ok(())
    }
}

fn mode_name<S: serde::Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(mode.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::event::{Storm, Way};

    fn round(workload: &str, part: &str, problems: &[&str]) -> Event {
        let way = Way {
            pulls: 2,
            moved: 30,
        };
        Event::Round(Round {
            workload: workload.into(),
            part: part.into(),
            seconds: 5.0,
            seconds_without: 1.0,
            storm: Storm {
                over: way,
                back: way,
                ..Storm::default()
            },
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
        })
    }

    fn soaked(events: &[Event]) -> Soaked {
        let mut soaked = Soaked::new(Mode::Numa);
        let mut known = BTreeMap::new();
        events
            .iter()
            .for_each(|event| soaked.event(event, &mut known));
        soaked
    }

    fn each_once() -> Vec<Event> {
        let rounds = workload::ALL.iter();
        rounds.map(|one| round(one.name, one.name, &[])).collect()
    }

    #[test]
    fn it_has_passed_when_all_ran_and_nothing_was_wrong() {
        let mut events = each_once();
        events.push(Event::End {
            rounds: workload::ALL.len(),
            next: 4,
        });
        let report = Report::new(20, 0, vec![soaked(&events)]);
        assert!(report.passed());
        assert!(report.ktap().contains("ok 5 numa.the_vm_ends_well"));
        assert!(!Report::new(20, 0, Vec::new()).passed());
    }

    #[test]
    fn it_has_failed_when_a_workload_differed_or_never_ran_or_the_end_is_missing() {
        let passed = |events: &[Event]| Report::new(20, 0, vec![soaked(events)]).passed();
        let end = |rounds| Event::End { rounds, next: 0 };
        assert!(!passed(&each_once()));
        assert!(!passed(&[end(0)]));
        let mut events = each_once();
        events.push(round("sort", "sort", &["different"]));
        events.push(end(5));
        assert!(!passed(&events));
    }

    #[test]
    fn rounds_are_added_by_workload() {
        let events = [
            round("python", "python a", &[]),
            round("python", "python a", &[]),
        ];
        let soaked = soaked(&events);
        let sums = &soaked.workloads[0];
        assert_eq!((sums.rounds, sums.parts, sums.pages_over), (2, 1, 60));
        let text = Report::new(20, 0, vec![soaked]).to_string();
        let row: Vec<&str> = text
            .lines()
            .nth(1)
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(row[..4], ["numa", "python", "2", "0"]);
        assert!(row[4].starts_with("1/") && row[5] == "60", "{text}");
    }
}

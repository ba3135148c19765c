// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of it: for people, for machines, and as test results.

use std::fmt;

use serde::Serialize;

use crate::case::Mode;
use crate::ktap::{Outcome, ResultLine, VERSION_LINE};
use crate::stress::event::Event;

/// What came of one mode.
#[derive(Debug, Serialize)]
pub struct Stressed {
    #[serde(serialize_with = "mode_name")]
    mode: Mode,
    /// What the guest told of each stressor in the storm, or that it does not run here.
    events: Vec<Event>,
    /// How VMs ended that did not end well, each with the stressor that was running.
    pub bad_ends: Vec<(String, String)>,
    /// The next step.
    next: usize,
    /// All have run.
    ended: bool,
    /// The step that is being made, and its stressor.
    #[serde(skip)]
    begun: Option<(usize, String)>,
}

impl Stressed {
    /// Nothing yet.
    pub fn new(mode: Mode, from: usize) -> Self {
        Stressed {
            mode,
            events: Vec::new(),
            bad_ends: Vec::new(),
            next: from,
            ended: false,
            begun: None,
        }
    }

    /// The next step to make.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Whether all have run.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what the guest tells.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Begin { step, name, .. } => self.begun = Some((step, name)),
            Event::Ran { step, .. } | Event::LeftOut { step, .. } => {
                self.begun = None;
                self.next = step + 1;
                self.events.push(event);
            }
            Event::Reference { .. } => {}
            Event::End => self.ended = true,
        }
    }

    /// A VM has ended, and how if not well.
    pub fn vm_ended(&mut self, bad: Option<String>) {
        let Some(end) = bad else {
            // Without a word on it, it would begin anew for ever.
            self.ended = true;
            return;
        };
        let (step, name) = self
            .begun
            .take()
            .unwrap_or((self.next, "the VM".to_owned()));
        self.next = step + 1;
        self.bad_ends.push((name, end));
    }

    fn results(&self) -> Vec<(String, Outcome)> {
        let of_events = self.events.iter().filter_map(|event| match event {
            Event::Ran { name, problems, .. } if problems.is_empty() => {
                Some((name.clone(), Outcome::Passed))
            }
            Event::Ran { name, .. } => Some((name.clone(), Outcome::Failed)),
            Event::LeftOut { name, reason, .. } => {
                Some((name.clone(), Outcome::Skipped(reason.replace('\n', " "))))
            }
            _ => None,
        });
        let of_vms = self.bad_ends.iter();
        let of_vms =
            of_vms.map(|(name, _)| (format!("the_vm_lives_on_after_{name}"), Outcome::Failed));
        let all = if self.ended && !self.events.is_empty() {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        let all = [("all_stressors_have_run".to_owned(), all)];
        of_events
            .chain(of_vms)
            .chain(all)
            .map(|(name, outcome)| (format!("{}.{name}", self.mode), outcome))
            .collect()
    }

    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        let results = self.results();
        results
            .iter()
            .filter(|(_, outcome)| wanted(outcome))
            .count()
    }
}

/// What came of all modes.
#[derive(Debug, Serialize)]
pub struct Report {
    seconds: u64,
    modes: Vec<Stressed>,
}

impl Report {
    /// The report of these modes.
    pub fn new(seconds: u64, modes: Vec<Stressed>) -> Self {
        Report { seconds, modes }
    }

    /// Whether something ran and nothing failed.
    pub fn passed(&self) -> bool {
        let mut results = self.modes.iter().flat_map(Stressed::results);
        !self.modes.is_empty() && results.all(|(_, outcome)| outcome != Outcome::Failed)
    }

    /// The results as KTAP.
    pub fn ktap(&self) -> String {
        let results: Vec<_> = self.modes.iter().flat_map(Stressed::results).collect();
        let mut text = format!("{VERSION_LINE}\n1..{}\n", results.len());
        for (index, (name, outcome)) in results.iter().enumerate() {
            let line = ResultLine {
                number: index + 1,
                name,
                outcome,
            };
            text.push_str(&format!("{line}\n"));
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stressed in &self.modes {
            let mut moved = [0, 0];
            for event in &stressed.events {
                if let Event::Ran {
                    moved: [over, back],
                    ..
                } = event
                {
                    moved[0] += over;
                    moved[1] += back;
                }
            }
            let ran = stressed.events.iter();
            let ran = ran
                .filter(|event| matches!(event, Event::Ran { .. }))
                .count();
            let skipped = stressed.count(|outcome| matches!(outcome, Outcome::Skipped(_)));
            let failed = stressed.count(|outcome| *outcome == Outcome::Failed);
            writeln!(
                f,
                "{:<9} {ran} stressors in the storm for {} s each, {failed} failures, {skipped} do not run here; \
                 {} pages over, {} back; `--from {}` goes on from here",
                stressed.mode.name(),
                self.seconds,
                moved[0],
                moved[1],
                stressed.next,
            )?;
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
    use crate::stress::event::Ended;

    fn ran(step: usize, problems: &[&str]) -> Event {
        Event::Ran {
            step,
            name: format!("stressor-{step}"),
            ended: Ended {
                status: Some(0),
                success: true,
                said: Vec::new(),
            },
            moved: [1, 2],
            seed: 3,
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn passed(stressed: Stressed) -> bool {
        Report::new(10, vec![stressed]).passed()
    }

    #[test]
    fn it_has_passed_when_all_have_ended_as_without_a_storm() {
        let run = |events: &[Event]| {
            let mut stressed = Stressed::new(Mode::Numa, 0);
            events
                .iter()
                .for_each(|event| stressed.event(event.clone()));
            stressed.vm_ended(None);
            passed(stressed)
        };
        assert!(run(&[ran(0, &[]), Event::End]));
        assert!(!run(&[ran(0, &["it ended otherwise"]), Event::End]));
        assert!(!run(&[Event::End]));
    }

    #[test]
    fn a_vm_that_ends_badly_is_a_failure_of_its_stressor_and_the_next_goes_on_behind_it() {
        let mut stressed = Stressed::new(Mode::Numa, 4);
        stressed.event(ran(4, &[]));
        stressed.event(Event::Begin {
            step: 5,
            of: 9,
            name: "vm-segv".into(),
            storm: true,
        });
        stressed.vm_ended(Some("panic".into()));
        assert_eq!((stressed.next(), stressed.has_ended()), (6, false));
        let report = Report::new(10, vec![stressed]);
        assert!(!report.passed());
        assert!(report
            .ktap()
            .contains("not ok 2 numa.the_vm_lives_on_after_vm-segv"));
    }
}

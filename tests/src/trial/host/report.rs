// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of a trial: for people, for machines, and as test results.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::case::Mode;
use crate::ktap::{Outcome, ResultLine, VERSION_LINE};
use crate::trial::event::{Counts, Event, Point};
use crate::trial::plan::{Plan, What};

/// What came of one mode.
#[derive(Debug, Serialize)]
pub struct Tried {
    #[serde(serialize_with = "mode_name")]
    mode: Mode,
    plan: Plan,
    /// Each point that was made.
    points: Vec<Point>,
    /// How VMs ended that did not end well, with the point at which each did.
    pub bad_ends: Vec<(Option<usize>, String)>,
    /// VMs.
    vms: usize,
    /// The point that is being made.
    #[serde(skip)]
    begun: Option<usize>,
}

impl Tried {
    /// Nothing yet.
    pub fn new(mode: Mode, plan: Plan) -> Self {
        Tried {
            mode,
            plan,
            points: Vec::new(),
            bad_ends: Vec::new(),
            vms: 0,
            begun: None,
        }
    }

    /// The next point to make, if one is left.
    pub fn next(&self) -> Option<usize> {
        let made = self.points.last().map(|point| point.point);
        let bad = self.bad_ends.iter().filter_map(|(point, _)| *point).max();
        let next = made.max(bad).map_or(self.plan.from, |last| last + 1);
        (next < self.plan.to).then_some(next)
    }

    /// Takes what the guest tells.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Begin { point, .. } => self.begun = Some(point),
            Event::Point(point) => {
                self.begun = None;
                self.points.push(point);
            }
            Event::End => {}
        }
    }

    /// A VM has ended, and how if not well.
    pub fn vm_ended(&mut self, bad: Option<String>) {
        self.vms += 1;
        if let Some(end) = bad {
            // Without a point of its own it has failed at the next one.
            let at = self.begun.take().or(self.next());
            self.bad_ends.push((at, end));
        }
    }

    fn sums(&self) -> Counts {
        let mut sums = Counts::default();
        for Point { counts, .. } in &self.points {
            sums.commands += counts.commands;
            sums.moved += counts.moved;
            sums.refused += counts.refused;
            sums.verified += counts.verified;
            sums.lost += counts.lost;
            sums.foreign += counts.foreign;
            sums.programs += counts.programs;
        }
        sums
    }

    /// The results of this mode.
    fn results(&self) -> Vec<(String, bool)> {
        let sums = self.sums();
        let made = self.points.len() == self.plan.to - self.plan.from;
        let right = self.points.iter().all(Point::is_right);
        [
            ("all_points_are_made", made),
            (
                "no_byte_is_foreign",
                sums.foreign == 0 && !self.points.is_empty(),
            ),
            ("no_byte_is_lost", sums.lost == 0 && sums.verified > 0),
            ("everybody_goes_on_within_the_limits", right && made),
            ("the_vm_ends_well", self.bad_ends.is_empty() && self.vms > 0),
        ]
        .into_iter()
        .map(|(name, passed)| (format!("{}.{name}", self.mode), passed))
        .collect()
    }

    /// Points of each kind, stops by their length.
    fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for point in &self.points {
            let kind = match point.what {
                What::Stop(0..=3000) => "stopped up to 3 s",
                What::Stop(3001..=10_000) => "stopped up to 10 s",
                What::Stop(_) => "stopped up to 30 s",
                What::Kill => "killed",
                What::Unbind => "unbound",
                What::Unplug => "unplugged",
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }
}

impl Point {
    /// Whether nothing was wrong.
    pub fn is_right(&self) -> bool {
        self.problems.is_empty() && self.counts.lost == 0 && self.counts.foreign == 0
    }
}

/// What came of all modes.
#[derive(Debug, Serialize)]
pub struct Report {
    modes: Vec<Tried>,
}

impl Report {
    /// The report of these modes.
    pub fn new(modes: Vec<Tried>) -> Self {
        Report { modes }
    }

    /// Whether something ran and nothing failed.
    pub fn passed(&self) -> bool {
        let mut results = self.modes.iter().flat_map(Tried::results);
        !self.modes.is_empty() && results.all(|(_, passed)| passed)
    }

    /// The results as KTAP.
    pub fn ktap(&self) -> String {
        let results: Vec<_> = self.modes.iter().flat_map(Tried::results).collect();
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
            "{:<9} {:>7} {:>7} {:>8} {:>8} {:>10} {:>9} {:>8} {:>11} {:>9} {:>4} {:>9}",
            "mode",
            "points",
            "failed",
            "foreign",
            "lost",
            "commands",
            "moved",
            "refused",
            "MiB compared",
            "programs",
            "VMs",
            "settled s"
        )?;
        for tried in &self.modes {
            let sums = tried.sums();
            let failed = tried
                .points
                .iter()
                .filter(|point| !point.is_right())
                .count();
            let slowest = tried.points.iter().map(|point| point.settled);
            writeln!(
                f,
                "{:<9} {:>7} {:>7} {:>8} {:>8} {:>10} {:>9} {:>8} {:>11} {:>9} {:>4} {:>9.1}",
                tried.mode.name(),
                tried.points.len(),
                failed + tried.bad_ends.len(),
                sums.foreign,
                sums.lost,
                sums.commands,
                sums.moved,
                sums.refused,
                sums.verified >> 20,
                sums.programs,
                tried.vms,
                slowest.fold(0.0, f64::max),
            )?;
            let kinds = tried.kinds().into_iter();
            let kinds: Vec<_> = kinds
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            writeln!(
                f,
                "          {}; seed {}",
                kinds.join(", "),
                tried.plan.seed
            )?;
            match tried.next() {
                Some(next) => writeln!(f, "          `--from {next}` goes on from here")?,
                None => writeln!(f, "          `--from {}` goes on from here", tried.plan.to)?,
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
    use crate::trial::plan::Trial;

    const PLAN: Plan = Plan {
        trial: Trial::Kill,
        seed: 1,
        from: 3,
        to: 5,
    };

    fn point(number: usize, lost: u64, problems: &[&str]) -> Event {
        Event::Point(Point {
            point: number,
            what: What::Kill,
            seconds: 1.0,
            settled: 0.5,
            counts: Counts {
                lost,
                verified: 100,
                ..Counts::default()
            },
            fresh: 4096,
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
        })
    }

    fn passed(events: &[Event], end: Option<&str>) -> bool {
        let mut tried = Tried::new(Mode::Numa, PLAN);
        events.iter().for_each(|event| tried.event(event.clone()));
        tried.vm_ended(end.map(str::to_owned));
        Report::new(vec![tried]).passed()
    }

    #[test]
    fn it_has_passed_when_all_points_are_made_and_nothing_was_wrong() {
        let points = [point(3, 0, &[]), point(4, 0, &[])];
        assert!(passed(&points, None));
        assert!(!passed(&points[..1], None));
        assert!(!passed(&points, Some("a kernel that complained")));
        assert!(!passed(&[point(3, 0, &["late"]), point(4, 0, &[])], None));
        assert!(!passed(&[point(3, 0, &[]), point(4, 8, &[])], None));
        assert!(!Report::new(Vec::new()).passed());
    }

    #[test]
    fn a_vm_that_ends_badly_costs_the_point_that_was_being_made() {
        let mut tried = Tried::new(Mode::Numa, PLAN);
        assert_eq!(tried.next(), Some(3));
        tried.event(Event::Begin {
            point: 3,
            what: What::Kill,
        });
        tried.vm_ended(Some("panic".into()));
        assert_eq!(tried.next(), Some(4));
        // One that does not even boot costs one as well, so that there is an end.
        tried.vm_ended(Some("no boot".into()));
        assert_eq!(tried.next(), None);
    }
}

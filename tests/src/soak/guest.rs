// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest half: one part after the other, until the time is over.
#![forbid(unsafe_code)]

mod compare;
mod data;
mod moved;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use coax_program::outln;

use super::event::{Event, Plan, Progress, Reference, Round, Storm};
use super::pass::{pass, Step};
use super::workload;
use moved::Moved;
use run::{Ended, Runner};

/// Where everything of the guest's lies, in its memory.
const FOLDER: &str = "/tmp/soak";

/// Carries the plan in this file out, and tells what happens on standard output.
///
/// # Errors
///
/// The workloads cannot be run, or one does not end. What goes wrong in a workload is told.
pub fn run(plan: &Path) -> Result<()> {
    let text = fs::read(plan).with_context(|| format!("Reading {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&text).context("The plan")?;
    fs::create_dir_all(FOLDER).with_context(|| format!("Making {FOLDER}"))?;
    data::write(Path::new(workload::DATA), workload::DATA_BYTES)?;
    let mut soak = Soak {
        runner: Runner::new(Path::new(FOLDER), &plan)?,
        moved: Moved::new()?,
        known: plan.known,
        total: Duration::from_secs(plan.seconds),
        spent: Duration::ZERO,
        rounds: 0,
        ran: BTreeSet::new(),
    };
    let pass = pass();
    ensure!(
        plan.from < pass.len(),
        "A pass has no step {}, only {}",
        plan.from,
        pass.len()
    );
    let mut next = plan.from;
    for (number, step) in pass.iter().enumerate().cycle().skip(plan.from) {
        if soak.spent < soak.total {
            soak.round(step, number)?;
            next = (number + 1) % pass.len();
        } else if soak.ran.len() == workload::ALL.len() {
            break;
        } else if !soak.ran.contains(step.workload.name) {
            // Whatever the time, there is a round of each workload.
            soak.round(step, number)?;
        }
    }
    tell(&Event::End {
        rounds: soak.rounds,
        next,
    })
}

struct Soak {
    runner: Runner,
    moved: Moved,
    known: BTreeMap<String, Reference>,
    /// Time in storms, as it is wanted and as it was.
    total: Duration,
    spent: Duration,
    rounds: usize,
    /// Names of workloads that had a round.
    ran: BTreeSet<&'static str>,
}

impl Soak {
    /// A part of the workload in a storm, and before it without one if that has not been done.
    fn round(&mut self, step: &Step, number: usize) -> Result<()> {
        let workload = step.workload;
        let name = workload.part_name(step.part);
        let reference = match self.known.get(&name) {
            Some(known) => known.clone(),
            None => {
                let (ended, _) = self.run(step, &name, number, false)?;
                let reference = Reference {
                    result: ended.result,
                    seconds: ended.duration.as_secs_f64(),
                };
                self.known.insert(name.clone(), reference.clone());
                tell(&Event::Reference {
                    part: name.clone(),
                    reference: reference.clone(),
                })?;
                reference
            }
        };
        let (ended, storm) = self.run(step, &name, number, true)?;
        self.spent += ended.duration;
        let mut problems = compare::differences(&reference.result, &ended.result);
        if !problems.is_empty() {
            problems.extend(compare::last_lines(&ended.errors));
        }
        let (storm, complaint) = storm;
        problems.extend(complaint);
        if !problems.is_empty() {
            problems.extend(run::kernel_log());
        }
        self.rounds += 1;
        self.ran.insert(workload.name);
        tell(&Event::Round(Round {
            workload: workload.name.to_owned(),
            part: name,
            seconds: ended.duration.as_secs_f64(),
            seconds_without: reference.seconds,
            storm,
            problems,
        }))
    }

    fn run(
        &mut self,
        step: &Step,
        name: &str,
        number: usize,
        storm: bool,
    ) -> Result<(Ended, (Storm, Option<String>))> {
        let Soak {
            runner,
            moved,
            total,
            spent,
            ..
        } = self;
        let ended = runner
            .run(step.workload.script, step.args, storm, |elapsed| {
                let in_storms = *spent + if storm { elapsed } else { Duration::ZERO };
                tell(&Event::Progress(Progress {
                    part: name.to_owned(),
                    step: number,
                    storm,
                    left: total.saturating_sub(in_storms).as_secs(),
                    moved: moved.pages()?,
                }))
            })
            .with_context(|| format!("Running {name}"))?;
        let report = if storm {
            runner.storm()?
        } else {
            (Storm::default(), None)
        };
        Ok((ended, report))
    }
}

fn tell(event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).context("An event")?;
    outln!("{line}").context("Telling the host")
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest half: the turns.
#![forbid(unsafe_code)]

mod compare;
mod data;
mod moved;
mod run;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::event::{Event, Plan, Progress, Reference, Round, Storm};
use super::workload::{self, Workload};
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
    };
    let mut turn = 0;
    while turn == 0 || soak.spent < soak.total {
        for workload in &workload::ALL {
            if turn == 0 || soak.spent < soak.total {
                soak.round(workload, turn)?;
            }
        }
        turn += 1;
    }
    tell(&Event::End {
        rounds: soak.rounds,
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
}

impl Soak {
    /// A part of the workload in a storm, and before it without one if that has not been done.
    fn round(&mut self, workload: &Workload, turn: usize) -> Result<()> {
        let (part, args) = workload.parts[turn % workload.parts.len()];
        let name = workload.part_name(part);
        let reference = match self.known.get(&name) {
            Some(known) => known.clone(),
            None => {
                let (ended, _) = self.run(workload, &name, args, turn, false)?;
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
        let (ended, storm) = self.run(workload, &name, args, turn, true)?;
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
        workload: &Workload,
        name: &str,
        args: &str,
        turn: usize,
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
            .run(workload.script, args, storm, |elapsed| {
                let in_storms = *spent + if storm { elapsed } else { Duration::ZERO };
                tell(&Event::Progress(Progress {
                    part: name.to_owned(),
                    turn,
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
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").context("Telling the host")?;
    stdout.flush().context("Telling the host")
}

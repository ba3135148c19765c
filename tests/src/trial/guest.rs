// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest half: a conductor, which has one thread and so may fork, and its crew.
//!
//! Whatever is found wrong is counted or told and the trial goes on with memory as it is, so that one run says
//! how often something happens. It ends early only where it cannot go on: a worker that cannot be had,
//! a device that does not come back.
#![forbid(unsafe_code)]

mod area;
mod board;
mod crew;
mod removal;
mod stall;
mod work;
mod worker;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use coax_program::outln;

use super::event::Event;
use super::plan::{what, Plan, What};
use super::rng::Rng;
use crew::Crew;

/// Carries the plan in this file out, and tells what happens on standard output.
///
/// # Errors
///
/// It could not go on. What was wrong at a point is told.
pub fn run(plan: &Path) -> Result<()> {
    let text = std::fs::read(plan).with_context(|| format!("Reading {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&text).context("The plan")?;
    let mut crew = Crew::new(plan.seed)?;
    for number in plan.from..plan.to {
        let what = what(plan.trial, plan.seed, number);
        tell(&Event::Begin {
            point: number,
            what,
        })?;
        let mut rng = Rng::new(plan.seed ^ 0x5afe, number as u64);
        let point = match what {
            What::Stop(time) => stall::point(&mut crew, number, time, &mut rng),
            _ => removal::point(&mut crew, number, what, &mut rng),
        };
        tell(&Event::Point(point.with_context(|| {
            format!("Point {number}, {what}: it cannot go on")
        })?))?;
    }
    crew.dismiss()?;
    tell(&Event::End)
}

fn tell(event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).context("An event")?;
    outln!("{line}").context("Telling the host")
}

/// Lets the storm go on for so long, or until `over`: the crew is complete meanwhile. Returns whether it was
/// over before.
fn while_storming(
    crew: &mut Crew,
    time: Duration,
    mut over: impl FnMut(&mut Crew) -> Result<bool>,
) -> Result<bool> {
    /// Between two looks at the crew.
    const INTERVAL: Duration = Duration::from_millis(10);
    let end = Instant::now() + time;
    loop {
        if over(crew)? {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        crew.tend()?;
        std::thread::sleep(left.min(INTERVAL));
    }
}

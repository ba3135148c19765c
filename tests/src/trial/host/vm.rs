// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The points of one mode, in one VM as long as that lives.

use std::time::Duration;

use anyhow::{Context, Result};
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{Bytes, GuestFile, LaunchError, Vm, VmConfig};
use coax_program::{out, outln};

use super::report::Tried;
use super::show::Show;
use crate::case::{Mode, TIME_FACTOR_VARIABLE};
use crate::host::action;
use crate::request::Request;
use crate::trial::event::Event;
use crate::trial::plan::{stopped, Plan};

/// Little enough that half of it is looked at within a second, and that what was let go is soon somebody
/// else's.
const MEMORY: Bytes = Bytes::mib(768);
/// Less than what the crew and a victim have: it is full at times.
const DEVICE_MEMORY: Bytes = Bytes::mib(128);
/// Where the plan lies in the guest.
const PLAN: &str = "/root/trial.json";
/// Life of a VM besides what is said of points, on a base kernel.
const OTHER_TIME: Duration = Duration::from_secs(180);
/// Longest that a point takes, besides its stop, on a base kernel: limits in the guest are shorter.
const POINT_TIME: Duration = Duration::from_secs(60);
/// VMs that may end badly before the rest is given up.
const MOST_BAD_ENDS: usize = 5;

/// What a trial is made of, beside its mode.
#[derive(Debug)]
pub struct Settings {
    /// What VMs are started from.
    pub images: Images,
    /// The points.
    pub plan: Plan,
}

/// Makes all points in this mode. After a VM that ended badly the next one begins behind the point at which
/// it did.
///
/// # Errors
///
/// A VM cannot be started; what goes wrong in it is part of the result.
pub fn run(settings: &Settings, mode: Mode) -> Result<Tried> {
    let mut tried = Tried::new(mode, settings.plan);
    while let Some(from) = tried.next() {
        if tried.bad_ends.len() >= MOST_BAD_ENDS {
            outln!(
                "{mode}: {MOST_BAD_ENDS} VMs have ended badly, points from {from} on are not made"
            )?;
            break;
        }
        let plan = Plan {
            from,
            ..settings.plan
        };
        one_vm(settings, plan, mode, &mut tried)?;
    }
    Ok(tried)
}

fn one_vm(settings: &Settings, plan: Plan, mode: Mode, tried: &mut Tried) -> Result<()> {
    let factor = settings.images.time_factor;
    let job =
        Job::new(["coax-guest-tests", "trial", PLAN]).env(TIME_FACTOR_VARIABLE, factor.to_string());
    let points = u32::try_from(plan.to - plan.from).context("So many points")?;
    let config = VmConfig {
        mode: mode.into(),
        memory: MEMORY,
        device_memory: DEVICE_MEMORY,
        timeout: Some(stopped(&plan) + (OTHER_TIME + POINT_TIME * points) * factor),
        files: vec![GuestFile {
            path: PLAN.into(),
            contents: serde_json::to_vec(&plan).context("The plan")?,
            mode: 0o644,
        }],
        ..VmConfig::default()
    };
    let mut show = Show::new(mode, &plan);
    let ended = Vm::start(&settings.images, &config, &job)
        .with_context(|| format!("Starting a VM in {mode} mode"))?
        .wait_watching(|line| {
            if let Ok(event) = serde_json::from_str::<Event>(line) {
                show.event(&event)?;
                tried.event(event);
            }
            Ok(Request::find(line).map(action))
        });
    let bad_end = match ended {
        Ok(outcome) if outcome.exit.success() => {
            // What workers have said of what they found.
            out!("{}", outcome.stderr_text())?;
            None
        }
        Ok(outcome) => Some(format!(
            "the guest's program: {}\n{}",
            outcome.exit, outcome.evidence
        )),
        Err(error @ LaunchError::Failed { .. }) => Some(error.to_string()),
        Err(error) => return Err(error).context("The VM"),
    };
    if let Some(end) = &bad_end {
        outln!("{mode}: {end}")?;
    }
    tried.vm_ended(bad_end);
    Ok(())
}

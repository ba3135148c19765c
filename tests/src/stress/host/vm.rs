// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All stressors in one mode, in one VM as long as that lives.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use coax_images::images::Images;
use coax_images::job::{Job, OWN_ROOT};
use coax_images::launch::{Bytes, GuestFile, LaunchError, Tree, Vm, VmConfig};
use coax_images::virtiofsd;
use coax_program::output::OutputError;
use coax_program::{errln, outln};

use super::report::Stressed;
use crate::case::{Mode, TIME_FACTOR_VARIABLE};
use crate::stress::event::{Ended, Event, Plan};

/// What stressors of memory ask for, and room for the rest.
const MEMORY: Bytes = Bytes::gib(3);
const DEVICE_MEMORY: Bytes = Bytes::mib(512);
/// Where the plan lies in the small root file system that comes with the guest.
const PLAN: &str = "/root/stress.json";
/// Life of a VM: limits in the guest end what hangs long before. Several hundred runs of ten seconds, each
/// of which may take minutes to end.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// VMs that may end badly before the rest is given up.
const MOST_BAD_ENDS: usize = 20;

/// What is run, beside the mode.
#[derive(Debug)]
pub struct Settings {
    /// What VMs are started from.
    pub images: Images,
    /// How long each stressor runs, each time.
    pub seconds: u64,
    /// The first step.
    pub from: usize,
    /// Only stressors whose names contain one of these; all if empty.
    pub filters: Vec<String>,
}

/// Runs the stressors in this mode; takes and adds to what is known of runs without a storm. After a VM that
/// ended badly the next one begins behind the stressor that was running.
///
/// # Errors
///
/// A VM cannot be started; what goes wrong in it is part of the result.
pub fn run(
    settings: &Settings,
    mode: Mode,
    known: &mut BTreeMap<String, Ended>,
) -> Result<Stressed> {
    let mut stressed = Stressed::new(mode, settings.from);
    while !stressed.has_ended() && stressed.bad_ends.len() < MOST_BAD_ENDS {
        one_vm(settings, mode, known, &mut stressed)?;
    }
    Ok(stressed)
}

fn one_vm(
    settings: &Settings,
    mode: Mode,
    known: &mut BTreeMap<String, Ended>,
    stressed: &mut Stressed,
) -> Result<()> {
    let plan = Plan {
        seconds: settings.seconds,
        from: stressed.next(),
        filters: settings.filters.clone(),
        known: known.clone(),
    };
    let factor = settings.images.time_factor;
    let plan_in_guest = format!("{OWN_ROOT}{PLAN}");
    let job = Job::new(["coax-guest-tests", "stress", &plan_in_guest])
        .env(TIME_FACTOR_VARIABLE, factor.to_string());
    let config = VmConfig {
        mode: mode.into(),
        memory: MEMORY,
        device_memory: DEVICE_MEMORY,
        tree: Some(Tree {
            folder: "/".into(),
            daemon: virtiofsd::built()?,
        }),
        timeout: Some(LIFE),
        files: vec![GuestFile {
            path: PLAN.into(),
            contents: serde_json::to_vec(&plan).context("The plan")?,
            mode: 0o644,
        }],
        ..VmConfig::default()
    };
    errln!("{mode}: booting; from step {}", plan.from);
    let ended = Vm::start(&settings.images, &config, &job)
        .with_context(|| format!("Starting a VM in {mode} mode"))?
        .wait_watching(|line| {
            if let Ok(event) = serde_json::from_str::<Event>(line) {
                if let Event::Reference { name, ended } = &event {
                    known.insert(name.clone(), ended.clone());
                }
                show(mode, &event)?;
                stressed.event(event);
            }
            Ok(None)
        });
    let bad_end = match ended {
        Ok(outcome) if outcome.exit.success() => None,
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
    stressed.vm_ended(bad_end);
    Ok(())
}

/// What went wrong on standard output, how far it is on standard error.
fn show(mode: Mode, event: &Event) -> Result<(), OutputError> {
    match event {
        Event::Begin {
            step,
            of,
            name,
            storm,
        } => {
            let place = if *storm {
                "in the storm"
            } else {
                "without a storm"
            };
            errln!("{mode}: step {step} of {}, {name} {place}", of - 1);
        }
        Event::Ran {
            name,
            problems,
            seed,
            ..
        } if !problems.is_empty() => {
            outln!("{mode}: {name}: FAILED, seed {seed}")?;
            for problem in problems {
                outln!("{mode}:   {problem}")?;
            }
        }
        Event::LeftOut { name, reason, .. } => errln!("{mode}: {name} left out: {reason}"),
        Event::Ran { .. } | Event::Reference { .. } | Event::End => {}
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One VM, with this machine's files as its root.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use coax_images::images::Images;
use coax_images::job::{Job, OWN_ROOT};
use coax_images::launch::{Bytes, GuestFile, LaunchError, Tree, Vm, VmConfig};
use coax_images::sqlite::Sqlite;
use coax_images::virtiofsd;
use coax_program::outln;

use super::report::Soaked;
use super::show;
use crate::case::{Mode, TIME_FACTOR_VARIABLE};
use crate::soak::event::{Event, Plan, Reference};

/// The file to sort, the memory to sort it in, and what the other programs write.
const MEMORY: Bytes = Bytes::gib(4);
/// Less than what is sorted: the storm meets full device memory as well.
const DEVICE_MEMORY: Bytes = Bytes::mib(512);
/// Where the plan lies in the small root file system that comes with the guest.
const PLAN: &str = "/root/soak.json";
/// Life of a VM besides the storm, on a base kernel: runs without a storm, and the end of the last in it.
/// What hangs is ended by a limit in the guest before.
const OTHER_TIME: Duration = Duration::from_secs(2 * 60 * 60);

/// What a soak is made of, beside its mode.
#[derive(Debug)]
pub struct Settings {
    /// What VMs are started from.
    pub images: Images,
    /// What is tested and compiled.
    pub sqlite: Sqlite,
    /// Least time in storms.
    pub time: Duration,
    /// The step of a pass to begin with.
    pub from: usize,
}

/// Soaks in this mode; takes and adds to what is known of runs without a storm.
///
/// # Errors
///
/// The VM cannot be started; what goes wrong in it is part of the result.
pub fn soak(
    settings: &Settings,
    mode: Mode,
    known: &mut BTreeMap<String, Reference>,
) -> Result<Soaked> {
    let plan = Plan {
        seconds: settings.time.as_secs(),
        from: settings.from,
        sqlite_source: settings.sqlite.source.clone(),
        sqlite_build: settings.sqlite.build.clone(),
        known: known.clone(),
    };
    let factor = settings.images.time_factor;
    let plan_in_guest = format!("{OWN_ROOT}{PLAN}");
    let mut job = Job::new(["coax-guest-tests", "soak", &plan_in_guest])
        .env(TIME_FACTOR_VARIABLE, factor.to_string());
    // In sight of the guest wherever the cache is.
    job.directory = settings.sqlite.build.parent().map(Into::into);
    let config = VmConfig {
        mode: mode.into(),
        memory: MEMORY,
        device_memory: DEVICE_MEMORY,
        tree: Some(Tree {
            folder: "/".into(),
            daemon: virtiofsd::built()?,
        }),
        timeout: Some(settings.time + OTHER_TIME * factor),
        files: vec![GuestFile {
            path: PLAN.into(),
            contents: serde_json::to_vec(&plan).context("The plan")?,
            mode: 0o644,
        }],
        ..VmConfig::default()
    };
    let mut soaked = Soaked::new(mode);
    let mut show = show::Show::new(mode);
    let ended = Vm::start(&settings.images, &config, &job)
        .with_context(|| format!("Starting a VM in {mode} mode"))?
        .wait_watching(|line| {
            // What is none is shown with the rest if the VM does not end well.
            if let Ok(event) = serde_json::from_str::<Event>(line) {
                show.event(&event)?;
                soaked.event(&event, known);
            }
            Ok(None)
        });
    match ended {
        Ok(outcome) if outcome.exit.success() => {}
        Ok(outcome) => {
            let said = outcome.stderr_text();
            soaked.bad_end = Some(format!("The guest's program: {}\n{said}", outcome.exit));
        }
        Err(error @ LaunchError::Failed { .. }) => soaked.bad_end = Some(error.to_string()),
        Err(error) => return Err(error).context("The VM"),
    }
    if let Some(end) = &soaked.bad_end {
        outln!("{end}")?;
    }
    Ok(soaked)
}

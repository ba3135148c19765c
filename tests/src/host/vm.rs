// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a group of cases, in one VM as long as that lives.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{Action, Bytes, LaunchError, Tree, Vm as Machine, VmConfig};
use coax_images::qemu::Form;
use coax_images::temporary::TemporaryFolder;
use coax_images::virtiofsd;
use coax_program::output::OutputError;
use coax_results::ktap::Parser;
use coax_results::{Outcome, TestResult};

use super::deviant;
use super::plan::Group;
use super::report::Report;
use super::witness::Witness;
use crate::case::{Entry, Mode, Vm, TIME_FACTOR_VARIABLE};
use crate::request::Request;

/// The guest program, in the guest's `PATH`.
const GUEST_PROGRAM: &str = "coax-guest-tests";
/// Boot, driver, and power-off, under TCG on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Of a node's memory: pages stay where a case puts them, until it asks for balancing.
const NUMA_KERNEL_ARGS: &str = "numa_balancing=disable";
/// What a case that asks for a stop gets: more than the driver waits for an answer, 10 s, and less than
/// makes the guest's kernel take a CPU for stuck, 20 s.
const STOP_TIME: Duration = Duration::from_secs(13);
/// Longest life of a VM: the cases' own limits end one that hangs long before.
const VM_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs the cases of a group. A case that takes the VM with it has failed, and those after it
/// run in another VM. The last result is how all VMs of the group ended, with the time of everything but
/// the cases.
///
/// # Errors
///
/// When a VM cannot be started, or results cannot be shown.
pub fn run_group(images: &Images, group: &Group, report: &mut Report) -> Result<()> {
    let (name, started) = (group.name(), Instant::now());
    let test = |result: &str, outcome| TestResult::new(&[&name], result, outcome);
    report.begin(&name, group.entries.len() + 1)?;
    if group.vm.loses_back_end() && images.form == Form::TwoFunctions {
        let reason = "a QEMU without our patches ends when the back end does";
        for result in group.results() {
            report.add(test(&result, Outcome::Skipped(reason.into())))?;
        }
        return Ok(report.end(&name)?);
    }
    let mut left = group.entries.as_slice();
    let mut diagnostics = Vec::new();
    while !left.is_empty() {
        let ended = run_vm(images, group, left, report)?;
        diagnostics.extend(ended.diagnostics);
        let done = match ended.results {
            Some(results) => results.min(left.len()),
            // Another VM would not do better.
            None => {
                for entry in left {
                    let reason = format!("no case ran, see {}", group.end());
                    let result = group.result_name(&entry.full_name());
                    report.add(test(&result, Outcome::Skipped(reason)))?;
                }
                left.len()
            }
        };
        left = &left[done..];
    }
    // A result of its own, so that a complaint of the kernel fails the run even if every case
    // passed.
    let seconds = started.elapsed().as_secs_f64() - report.seconds();
    report.add(TestResult {
        seconds: Some(seconds.max(0.0)),
        diagnostics: diagnostics.clone(),
        ..test(&group.end(), Outcome::of(diagnostics.is_empty()))
    })?;
    Ok(report.end(&name)?)
}

/// What came of a VM.
struct Ended {
    /// How many cases have their result; `None` if the guest began none.
    results: Option<usize>,
    /// What was not well about the VM itself.
    diagnostics: Vec<String>,
}

/// Runs the cases in a VM.
fn run_vm(images: &Images, group: &Group, entries: &[Entry], report: &mut Report) -> Result<Ended> {
    let mut argv = vec![GUEST_PROGRAM.to_owned(), "run".to_owned()];
    argv.extend(entries.iter().map(Entry::full_name));
    let mut output = Output::new(group, report);
    let factor = images.time_factor;
    let mut job = Job::new(argv).env(TIME_FACTOR_VARIABLE, factor.to_string());
    let mut config = VmConfig {
        translation: images.translation,
        ..config(group, entries, factor)
    };
    let witness = match group.vm {
        Vm::Tree => Some(Witness::new()?),
        _ => None,
    };
    if let Some(witness) = &witness {
        config.tree = Some(Tree {
            folder: Path::new("/").to_path_buf(),
            daemon: virtiofsd::built()?,
        });
        job.directory = Some(witness.path().into());
    }
    let deviant = match group.vm {
        Vm::DeviantDevice => {
            let folder = TemporaryFolder::new().context("Cannot make a temporary folder")?;
            let images = Images {
                device: deviant::program(&folder)?,
                ..images.clone()
            };
            Some((images, folder))
        }
        _ => None,
    };
    let images = deviant.as_ref().map_or(images, |(images, _)| images);
    let outcome = Machine::start(images, &config, &job)
        .with_context(|| format!("Starting a VM for {group}"))?
        .wait_watching(|line| output.take(line));

    let Output {
        parser, mut shown, ..
    } = output;
    let (started, complete) = (parser.has_plan(), parser.is_complete());
    let bail_out = parser.bail_out().map(str::to_owned);
    let (_, last_words) = parser.finish();

    let mut diagnostics = Vec::new();
    match outcome {
        // A guest program that is not there.
        Ok(outcome) if !started => diagnostics.push(format!("the job: {}", outcome.exit)),
        Ok(_) => {}
        Err(error @ LaunchError::Failed { .. }) => {
            diagnostics.extend(error.to_string().lines().map(str::to_owned));
        }
        Err(error) => return Err(error).with_context(|| format!("Running a VM for {group}")),
    }
    if let Some(witness) = &witness {
        diagnostics.extend(witness.changes()?);
    }
    if !started {
        diagnostics.push(format!("{} cases were not run", entries.len()));
        return Ok(Ended {
            results: None,
            diagnostics,
        });
    }
    if !complete {
        // The case that was running when the output stopped.
        if let Some(entry) = entries.get(shown) {
            let name = group.result_name(&entry.full_name());
            let mut test = TestResult::new(&[group.name()], name, Outcome::Failed);
            test.diagnostics = last_words;
            let bail_out = bail_out.map(|reason| format!("bail out: {reason}"));
            test.diagnostics.extend(bail_out);
            let end = "the VM ended, or the run stopped, during this case";
            report.add(test.saying(end))?;
            shown += 1;
        }
    }
    Ok(Ended {
        results: Some(shown),
        diagnostics,
    })
}

/// Reads the guest's output as it comes.
struct Output<'a> {
    group: &'a Group,
    report: &'a mut Report,
    parser: Parser,
    /// Results shown.
    shown: usize,
}

impl<'a> Output<'a> {
    fn new(group: &'a Group, report: &'a mut Report) -> Self {
        Output {
            group,
            report,
            parser: Parser::default(),
            shown: 0,
        }
    }

    fn take(&mut self, line: &str) -> Result<Option<Action>, OutputError> {
        if let Some(request) = Request::find(line) {
            return Ok(Some(action(request)));
        }
        self.parser.line(line);
        for result in &self.parser.results()[self.shown..] {
            self.report.add(TestResult {
                path: vec![self.group.name()],
                name: self.group.result_name(&result.name),
                ..result.clone()
            })?;
        }
        self.shown = self.parser.results().len();
        Ok(None)
    }
}

/// What is done for a request.
pub fn action(request: Request) -> Action {
    match request {
        Request::KillDevice => Action::KillDevice,
        Request::StopDevice => Action::StopDevice,
        Request::ContinueDevice => Action::ContinueDevice,
        Request::UnplugDevice => Action::UnplugDevice,
        Request::PlugDevice => Action::PlugDevice,
        Request::Stop => Action::Stop(STOP_TIME),
        Request::StopDeviceFor(time) => Action::StopDeviceFor(time),
    }
}

fn config(group: &Group, entries: &[Entry], time_factor: u32) -> VmConfig {
    let cases: Duration = entries.iter().map(|entry| entry.case.limit).sum();
    VmConfig {
        mode: group.mode.into(),
        cpus: group.vm.cpus(),
        devices: group.vm.devices(),
        form: group
            .vm
            .has_two_functions_a_device()
            .then_some(Form::TwoFunctions),
        queue_size: group.vm.queue_size(),
        device_memory: Bytes::mib(group.vm.device_memory_mib(group.mode)),
        kernel_args: (group.mode == Mode::Numa)
            .then(|| NUMA_KERNEL_ARGS.to_owned())
            .into_iter()
            .collect(),
        timeout: Some((BOOT_LIMIT + cases).min(VM_LIMIT) * time_factor),
        ..VmConfig::default()
    }
}

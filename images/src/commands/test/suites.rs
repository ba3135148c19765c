// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suites of `coax test`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use nix::sys::signal::Signal;

use super::results::{ktap_line, CargoOutput, Results, Verdict};
use crate::cli::Test;
use crate::commands::{announce, demo};
use coax_images::cache;
use coax_images::cargo;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::process::Group;
use coax_images::progress::Progress;
use coax_images::{qemu, tool, virtiofsd};
use coax_program::outln;
use coax_program::output::OutputError;

/// Tests of all crates, for the estimate.
const EXPECTED_TESTS: u64 = 370;

/// Format, lints, documentation and tests of everything that runs without a VM.
pub fn unit(results: &mut Results) -> Result<()> {
    let log = log("unit")?;
    if has_tool(results, "unit: format", "fmt") {
        step(
            results,
            "unit: format",
            cargo::command(&["fmt", "--all", "--check"]),
            &log,
        );
    }
    if has_tool(results, "unit: lints", "clippy") {
        let lints = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        step(results, "unit: lints", cargo::command(&lints), &log);
    }
    let mut doc = cargo::command(&["doc", "--workspace", "--no-deps", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step(results, "unit: documentation", doc, &log);

    let from = results.len();
    let mut output = CargoOutput::default();
    let mut progress = Progress::start("Unit tests");
    let mut done = 0;
    let mut tests = cargo::command(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    // The device's tests with QEMU run where there is one.
    if let Ok(qemu) = qemu::Which::default().built() {
        tests.env("COAX_QEMU", qemu.program);
    }
    let ran = tool::run_logged(&mut tests, "Unit tests", &log, |line| {
        if let Some((name, verdict)) = output.line(line) {
            results.add(name, verdict);
            done += 1;
            progress.update(done, EXPECTED_TESTS);
        }
    });
    progress.finish();
    summary(results, from, "unit tests")?;
    match ran {
        // The failures that were read tell more than cargo's status.
        Err(error) if results.counts_from(from).1 == 0 => Err(error),
        Err(_) => {
            outln!("log: {}", log.display())?;
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The VM tests, `coax run` as users call it and, unless some of them are asked for, the
/// demonstration.
pub fn vm(results: &mut Results, options: &Test, install: bool) -> Result<()> {
    let images = Images::build(&options.kernel.which, install)?;
    announce(&images, &Mode::ALL)?;
    virtiofsd::build(install)?;
    if super::run::others_wanted(options) {
        run_vm_tests(results, options)?;
    }
    super::run::run(results, options)?;
    if options.filter.is_empty() {
        demonstrate(results, &images);
    }
    Ok(())
}

fn demonstrate(results: &mut Results, images: &Images) {
    for mode in Mode::MOVING {
        let name = format!("vm: demo.{mode}");
        match demo::show(images, &[mode]) {
            Ok(shown) if shown.passed => results.add(name, Verdict::Passed),
            Ok(_) => results.add(name, Verdict::Failed),
            Err(error) => results.broken(&name, &format!("{error:#}")),
        }
    }
}

fn run_vm_tests(results: &mut Results, options: &Test) -> Result<()> {
    let from = results.len();
    let ended = vm_lines(options, &options.filter, |line| {
        if let Some((name, verdict)) = ktap_line(line) {
            results.add(format!("vm: {name}"), verdict);
        }
    });
    match ended {
        // The failures that were read tell more than the status.
        Err(_) if results.counts_from(from).1 > 0 => Ok(()),
        ended => ended,
    }
}

/// Runs the VM tests whose names contain one of `filter`, or all, prints their lines and has `read` look
/// at each.
///
/// # Errors
///
/// They could not be started, or something failed.
pub fn vm_lines(
    options: &Test,
    filter: impl IntoIterator<Item = impl AsRef<OsStr>>,
    mut read: impl FnMut(&str),
) -> Result<()> {
    let mut tests = Command::new(vm_tests()?);
    tests.args(filter).args(options.kernel.which.words());
    tests.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut group = Group::start(&mut tests, Signal::SIGTERM).context("Cannot start VM tests")?;
    let output = group
        .child()
        .stdout
        .take()
        .context("The VM tests have no output")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("Cannot read the VM tests' output")?;
        outln!("{line}")?;
        read(&line);
    }
    let status = group.wait().context("Cannot wait for the VM tests")?;
    if !status.success() {
        bail!("The VM tests ended with {status}");
    }
    Ok(())
}

/// The list of all cases, as the VM tests print it.
pub fn vm_case_list() -> Result<String> {
    tool::output_of(Command::new(vm_tests()?).arg("--list"))
}

/// Lists the cases of the VM suite.
pub fn list_vm_cases(options: &Test) -> Result<()> {
    super::run::list(options)?;
    if !super::run::others_wanted(options) {
        return Ok(());
    }
    let status = Command::new(vm_tests()?)
        .args(&options.filter)
        .arg("--list")
        .stdin(Stdio::null())
        .status()
        .context("Cannot start the VM tests")?;
    if !status.success() {
        bail!("The VM tests ended with {status}");
    }
    Ok(())
}

/// Runs a program that boots VMs for a suite of this name, prints its lines and takes its results.
///
/// # Errors
///
/// It could not be started, or ended badly without saying what failed.
pub fn ktap_of(results: &mut Results, suite: &str, mut program: Command) -> Result<()> {
    program.stdin(Stdio::null()).stdout(Stdio::piped());
    let group = Group::start(&mut program, Signal::SIGTERM);
    let mut group = group.with_context(|| format!("Cannot start {suite}"))?;
    let output = group.child().stdout.take().context("It has no output")?;
    let from = results.len();
    for line in BufReader::new(output).lines() {
        let line = line.with_context(|| format!("Cannot read the output of {suite}"))?;
        outln!("{line}")?;
        if let Some((name, verdict)) = ktap_line(&line) {
            results.add(format!("{suite}: {name}"), verdict);
        }
    }
    let status = group.wait().context("Cannot wait for it")?;
    // The failures that were read tell more than the status.
    if !status.success() && results.counts_from(from).1 == 0 {
        bail!("It ended with {status}");
    }
    Ok(())
}

/// Builds the program that runs the VM tests.
fn vm_tests() -> Result<PathBuf> {
    test_program("coax-vm-tests")
}

/// Builds a program of the package with the VM tests.
pub fn test_program(name: &str) -> Result<PathBuf> {
    let build = cargo::command(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "vm-tests",
        "--bin",
        name,
    ]);
    let title = format!("Building {name}");
    let progress = Progress::start(&title);
    let built = cargo::build(build, &title, &log("vm")?, |_| {})?;
    progress.finish();
    Ok(built.file(name)?.to_path_buf())
}

/// An empty log for a suite.
pub fn log(suite: &str) -> Result<PathBuf> {
    let folder = cache::root()?.join("test");
    cache::make_folder(&folder)?;
    let log = folder.join(format!("{suite}.log"));
    fs::write(&log, "").with_context(|| format!("Cannot write {}", log.display()))?;
    Ok(log)
}

/// Whether cargo's `subcommand` is installed; if not, `name` is skipped.
fn has_tool(results: &mut Results, name: &str, subcommand: &str) -> bool {
    let installed = tool::output_of(&mut cargo::command(&[subcommand, "--version"])).is_ok();
    if !installed {
        let reason = format!("cargo {subcommand} is not installed");
        results.add(name.to_owned(), Verdict::Skipped(reason));
    }
    installed
}

/// A step that passes or fails as a whole.
pub fn step(results: &mut Results, name: &str, mut command: Command, log: &Path) {
    let progress = Progress::start(name);
    match tool::run_logged(&mut command, name, log, |_| {}) {
        Ok(()) => {
            progress.finish();
            results.add(name.to_owned(), Verdict::Passed);
        }
        Err(error) => {
            progress.abandon();
            results.broken(name, &format!("{error:#}"));
        }
    }
}

pub fn summary(results: &Results, from: usize, what: &str) -> Result<(), OutputError> {
    let (passed, failed) = results.counts_from(from);
    outln!("  {what}: {passed} passed, {failed} failed")
}

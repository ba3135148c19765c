// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suites of `coax test`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{anyhow, bail, ensure, Context, Result};
use coax_results::ktap::Parser;
use coax_results::{Outcome, TestResult};
use nix::sys::signal::Signal;

use super::modes;
use super::part::Part;
use super::results::{CargoOutput, Results};
use crate::cli::Test;
use crate::commands::{announce, demo};
use coax_images::archive;
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

/// Steps of the suite `unit`, each of them whole in one part of a run.
pub const UNIT: [&str; 4] = ["format", "lints", "documentation", "tests"];

/// Format, lints, documentation and tests of everything that runs without a VM.
pub fn unit(results: &mut Results, part: &Part) -> Result<()> {
    let log = log("unit")?;
    for name in UNIT {
        if !part.has(&format!("unit/{name}")) {
            continue;
        }
        match name {
            "format" if has_tool(results, name, "fmt") => {
                let format = cargo::command(&["fmt", "--all", "--check"]);
                step(results, &["unit"], name, format, &log);
            }
            "lints" if has_tool(results, name, "clippy") => {
                let lints = [
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ];
                step(results, &["unit"], name, cargo::command(&lints), &log);
            }
            "documentation" => {
                let mut doc = cargo::command(&["doc", "--workspace", "--no-deps", "--locked"]);
                doc.env("RUSTDOCFLAGS", "-D warnings");
                step(results, &["unit"], name, doc, &log);
            }
            "tests" => unit_tests(results, name, &log)?,
            _ => {}
        }
    }
    Ok(())
}

/// Tests of all crates, under `name` as a whole too.
fn unit_tests(results: &mut Results, name: &str, log: &Path) -> Result<()> {
    let (from, began) = (results.len(), Instant::now());
    let mut output = CargoOutput::default();
    let mut progress = Progress::start("Unit tests");
    let mut done = 0;
    let mut tests = cargo::command(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    // The device's tests with QEMU run where there is one.
    if let Ok(qemu) = qemu::Which::default().built() {
        tests.env("COAX_QEMU", qemu.program);
    }
    let ran = tool::run_logged(&mut tests, "Unit tests", log, |line| {
        if let Some(test) = output.line("unit", line) {
            results.take(test);
            done += 1;
            progress.update(done, EXPECTED_TESTS);
        }
    });
    progress.finish();
    let (passed, failed) = results.counts_from(from);
    outln!("  unit tests: {passed} passed, {failed} failed")?;
    if ran.is_err() && failed > 0 {
        // The failures that were read tell more than cargo's status.
        outln!("log: {}", log.display())?;
        let test = TestResult::new(&["unit"], name, Outcome::Failed);
        results.take(test.took(began.elapsed()));
    } else {
        results.step(&["unit"], name, began.elapsed(), ran);
    }
    Ok(())
}

/// What the suite `vm` has, in its order: the path, and the full name.
///
/// # Errors
///
/// The VM tests could not be built, or do not list their results.
pub fn vm_names(options: &Test, install: bool) -> Result<Vec<(String, String)>> {
    Images::build(&options.kernel.which, install)?;
    let mut names = Vec::new();
    if super::run::others_wanted(options) {
        let mut plan = vm_command(options, &options.filter)?;
        let text = tool::output_of(plan.arg("--plan"))?;
        for line in text.lines() {
            let (group, result) = line.split_once(' ').context("It is no list of results")?;
            // How its VM ends has to be seen wherever one of its cases runs.
            if !result.ends_with("the_vm_ends_well") {
                let group = format!("vm/{group}");
                names.push((group.clone(), format!("{group}/{result}")));
            }
        }
    }
    let alone = |path: &[&str], name: &str| {
        let name = TestResult::new(path, name, Outcome::Passed).full_name();
        (name.clone(), name)
    };
    let run = super::run::names(options);
    names.extend(run.iter().map(|name| alone(super::run::PATH, name)));
    names.extend(demos(options).map(|mode| alone(DEMO, mode.name())));
    Ok(names)
}

/// Where the demonstration's results stand.
const DEMO: &[&str] = &["vm", "demo"];

/// The modes in which the demonstration belongs to the suite.
fn demos(options: &Test) -> impl Iterator<Item = Mode> + '_ {
    let modes = modes(options).into_iter();
    modes.filter(|_| options.filter.is_empty())
}

/// The VM tests, `coax run` as users call it and, unless some of them are asked for, the
/// demonstration.
pub fn vm(results: &mut Results, options: &Test, part: &Part, install: bool) -> Result<()> {
    if !part.has_some_of("vm") {
        return Ok(());
    }
    let images = Images::build(&options.kernel.which, install)?;
    results.ran_on(&announce(&images, &modes(options))?);
    virtiofsd::build(install)?;
    if super::run::others_wanted(options) {
        run_vm_tests(results, options, part)?;
    }
    super::run::run(results, options, part)?;
    for mode in demos(options) {
        let test = TestResult::new(DEMO, mode.name(), Outcome::Passed);
        if !part.has(&test.full_name()) {
            continue;
        }
        let began = Instant::now();
        let shown = demo::show(&images, &[mode]);
        let shown = shown.and_then(|shown| {
            ensure!(shown.passed, "A scenario failed");
            Ok(())
        });
        results.step(DEMO, mode.name(), began.elapsed(), shown);
    }
    Ok(())
}

fn run_vm_tests(results: &mut Results, options: &Test, part: &Part) -> Result<()> {
    let words = match part.names() {
        None => options.filter.clone(),
        Some(names) => {
            let of_a_vm = |name: &&String| {
                let alone = [super::run::PATH, DEMO].map(|path| path.join("/") + "/");
                name.starts_with("vm/") && !alone.iter().any(|path| name.starts_with(path))
            };
            let results = names
                .iter()
                .filter(of_a_vm)
                .filter_map(|name| name.rsplit('/').next());
            let words: Vec<String> = results.map(|result| format!("--exact={result}")).collect();
            if words.is_empty() {
                return Ok(());
            }
            words
        }
    };
    let from = results.len();
    let ended = vm_results(options, words, |test| {
        let suite = ["vm".to_owned()].into_iter();
        results.take(TestResult {
            path: suite.chain(test.path.iter().cloned()).collect(),
            ..test.clone()
        });
    });
    match ended {
        // The failures that were read tell more than the status.
        Err(_) if results.counts_from(from).1 > 0 => Ok(()),
        ended => ended,
    }
}

/// Runs the VM tests with these words, prints their lines and has `take` look at each result.
///
/// # Errors
///
/// They could not be started, or something failed.
pub fn vm_results(
    options: &Test,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    take: impl FnMut(&TestResult),
) -> Result<()> {
    let mut tests = vm_command(options, words)?;
    let (status, whole) = document_of("The VM tests", &mut tests, take)?;
    if !status.success() {
        bail!("The VM tests ended with {status}");
    }
    whole
}

/// The VM tests, told which kernel, which QEMU and which mode.
fn vm_command(
    options: &Test,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Command> {
    let mut tests = Command::new(vm_tests()?);
    tests.args(words).args(options.kernel.which.words());
    if let Some(mode) = options.mode {
        tests.args(["--mode", Mode::from(mode).name()]);
    }
    Ok(tests)
}

/// Runs a program that prints a KTAP document, prints its lines and has `take` look at each result. Returns
/// its status, and whether the document was whole.
fn document_of(
    what: &str,
    program: &mut Command,
    mut take: impl FnMut(&TestResult),
) -> Result<(ExitStatus, Result<()>)> {
    program.stdin(Stdio::null()).stdout(Stdio::piped());
    let group = Group::start(program, Signal::SIGTERM);
    let mut group = group.with_context(|| format!("Cannot start {what}"))?;
    let output = group.child().stdout.take();
    let output = output.with_context(|| format!("{what} has no output"))?;
    let mut parser = Parser::default();
    let mut seen = 0;
    for line in BufReader::new(output).lines() {
        let line = line.with_context(|| format!("Cannot read the output of {what}"))?;
        outln!("{line}")?;
        parser.line(&line);
        parser.results()[seen..].iter().for_each(&mut take);
        seen = parser.results().len();
    }
    let status = group.wait();
    let status = status.with_context(|| format!("Cannot wait for {what}"))?;
    let whole = if parser.is_complete() {
        Ok(())
    } else {
        let problem = parser.problems().first().cloned().unwrap_or_default();
        Err(anyhow!("The report of {what} is not whole: {problem}"))
    };
    Ok((status, whole))
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
    let status = vm_command(options, &options.filter)?
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
    let from = results.len();
    let (status, whole) = document_of(suite, &mut program, |test| {
        results.take(TestResult {
            path: vec![suite.to_owned()],
            ..test.clone()
        });
    })?;
    // The failures that were read tell more than the status.
    if !status.success() && results.counts_from(from).1 == 0 {
        bail!("It ended with {status}");
    }
    whole
}

/// Builds the program that runs the VM tests.
fn vm_tests() -> Result<PathBuf> {
    test_program("coax-vm-tests")
}

/// A program of the package with the VM tests: builds it, or takes that of the archive that this is.
pub fn test_program(name: &str) -> Result<PathBuf> {
    if let Some(archive) = archive::here()? {
        return archive.program(name);
    }
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
        results.add(&["unit"], name, Outcome::Skipped(reason));
    }
    installed
}

/// A step that passes or fails as a whole.
pub fn step(results: &mut Results, path: &[&str], name: &str, mut command: Command, log: &Path) {
    let progress = Progress::start(&format!("{}: {name}", path.join(": ")));
    let began = Instant::now();
    let ran = tool::run_logged(&mut command, name, log, |_| {});
    match &ran {
        Ok(()) => progress.finish(),
        Err(_) => progress.abandon(),
    }
    results.step(path, name, began.elapsed(), ran);
}

pub fn summary(results: &Results, from: usize, what: &str) -> Result<(), OutputError> {
    let (passed, failed) = results.counts_from(from);
    outln!("  {what}: {passed} passed, {failed} failed")
}

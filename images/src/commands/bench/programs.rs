// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax bench programs`: stock programs with the device and without, in one VM whose files are this
//! machine's, and the device's part beside the host's BLAS.

mod report;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

use super::goals;
use crate::cli::Programs;
use crate::commands::{announce, create, exit_code, refuse};
use coax_images::cache;
use coax_images::host_packages::{self, Group};
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Bytes, GuestFile, Tree, Vm, VmConfig};
use coax_images::progress::Progress;
use coax_images::tool;
use coax_images::virtiofsd;
use coax_program::outln;
use report::{HostProduct, Report};

/// What the guest does.
const GUEST: &str = include_str!("programs/guest.py");
/// The work that numpy is given, of host and guest.
const WORK: &str = "guest-driver/blas/bench/numpy_work.py";
/// Rows and columns of the product that the host makes too: [`GUEST`] has it.
const HOST_SIZE: u64 = 2048;
/// Runs of it, of which the fastest counts.
const HOST_RUNS: usize = 3;
/// Debian's Python, not one that the user may have before it.
const PYTHON: &str = "/usr/bin/python3";
/// Matrices of 2048², Python, and files of the host in the page cache.
const MEMORY: Bytes = Bytes::gib(3);
/// All matrices of the largest product, several times.
const DEVICE_MEMORY: Bytes = Bytes::gib(1);
/// Minutes under TCG, many times as many on a busy host and with `--full`.
const VM_LIMIT: Duration = Duration::from_secs(90 * 60);
/// Lines of the guest, for the estimate.
const EXPECTED_LINES: u64 = 73;

/// Measures everything, prints it with a line for each goal, and writes what is asked for.
pub fn run(options: &Programs, install: bool) -> Result<ExitCode> {
    let mode = Mode::from(options.mode);
    if let Some(status) = refuse(options.kernel.which.translation(), &[mode]) {
        return Ok(status);
    }
    let json = create(&options.json)?;
    let images = Images::build(options.kernel.ready(install)?, install)?;
    let daemon = virtiofsd::build(install)?;
    host_packages::ensure(&[Group::Programs], install)?;
    let machine = announce(&images, &[mode])?;

    let work = cache::checkout().join(WORK);
    let host = on_the_host(&work)?;
    let config = VmConfig {
        mode,
        translation: images.translation,
        memory: MEMORY,
        device_memory: DEVICE_MEMORY,
        tree: Some(Tree {
            folder: Path::new("/").to_path_buf(),
            daemon,
        }),
        files: vec![
            file("guest.py", GUEST.as_bytes().to_vec()),
            file("numpy_work.py", read(&work)?),
        ],
        timeout: Some(VM_LIMIT),
        ..VmConfig::default()
    };
    let mut report = Report::new(config.engines, host);
    in_the_guest(&images, &config, options, &mut report)?;
    outln!("\n{report}")?;

    outln!("What must be reached")?;
    let measured = report.measured();
    let mut judged = goals::judge(goals::PROGRAMS, &measured);
    if options.full {
        judged.extend(goals::judge(goals::PROGRAMS_FULL, &measured));
    }
    judged.iter().try_for_each(|goal| outln!("  {goal}"))?;
    let passed = judged.iter().all(|goal| goal.passed);
    if let Some(file) = json {
        let whole = json!({
            "verdict": if passed { "pass" } else { "fail" },
            "rounds": options.rounds,
            "report": report,
            "goals": judged,
        });
        file.json(&machine.report(whole))?;
    }
    Ok(exit_code(passed))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("Cannot read {}", path.display()))
}

fn file(name: &str, contents: Vec<u8>) -> GuestFile {
    GuestFile {
        path: format!("/root/{name}"),
        contents,
        mode: 0o644,
    }
}

/// The product by the host's numpy and its BLAS.
fn on_the_host(work: &Path) -> Result<HostProduct> {
    let mut progress = Progress::start("The product on the host");
    let mut fastest = f64::INFINITY;
    for run in 0..HOST_RUNS {
        progress.update(run as u64, HOST_RUNS as u64);
        let size = HOST_SIZE.to_string();
        let mut python = Command::new(PYTHON);
        python.arg(work).args(["product", &size, "-"]);
        let text = tool::output_of(&mut python)?;
        let line: Value =
            serde_json::from_str(&text).context("Cannot understand the host's numpy")?;
        let seconds = line["seconds"].as_f64();
        fastest = fastest.min(seconds.context("The host's numpy tells no time")?);
    }
    progress.finish();
    Ok(HostProduct {
        size: HOST_SIZE,
        seconds: fastest,
        load: load_average(),
    })
}

/// Of the last minute.
fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn in_the_guest(
    images: &Images,
    config: &VmConfig,
    options: &Programs,
    report: &mut Report,
) -> Result<()> {
    let mut progress = Progress::start("Programs in the guest");
    let script = "/run/coax/root/guest.py";
    let what = if options.full { "full" } else { "quick" };
    let job = Job::new([PYTHON, script, what, &options.rounds.to_string()]);
    let mut done = 0;
    let outcome = Vm::start(images, config, &job)?.wait_watching(|line| {
        if let Some(shown) = report.line(line) {
            done += 1;
            progress.make_room();
            outln!("  {shown}")?;
        }
        progress.update(done, EXPECTED_LINES);
        Ok(None)
    })?;
    progress.finish();
    if !outcome.exit.success() {
        bail!("guest.py: {}\n{}", outcome.exit, outcome.stderr_text());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_makes_the_hosts_product_and_finds_its_files() {
        assert!(GUEST.contains(&format!("\"product\", {HOST_SIZE}")));
        assert!(GUEST.contains("{OWN}/root/numpy_work.py"));
        assert!(cache::checkout().join(WORK).is_file());
        assert_eq!(coax_images::job::OWN_ROOT, "/run/coax");
    }
}

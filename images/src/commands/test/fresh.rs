// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `fresh`: the README's first commands on machines that have nothing yet, and how long each takes. All
//! that they need is fetched and built in each, so it takes long, and runs only when it is named.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use coax_results::{Outcome, TestResult};

use super::results::Results;
use crate::cli::Test;
use coax_images::cache;
use coax_images::debian::root::Root;
use coax_images::debian::{Release, BOOKWORM, TRIXIE};
use coax_images::host_packages::{self, Group};
use coax_images::progress::Progress;
use coax_images::tool;
use coax_program::outln;

/// The releases that are promised.
const RELEASES: [Release; 2] = [BOOKWORM, TRIXIE];
/// Root file system, kernel, QEMU and cargo's folders of one release.
const NEEDED_MIB: u64 = 12 << 10;
/// Where the checkout lies in a root.
const CHECKOUT: &str = "/root/coax";
/// What is run there, in this order: what the README begins with, the second of them with suites that need no
/// hour.
const COMMANDS: &[(&str, &str)] = &[
    ("first demo", "./coax demo"),
    ("second demo", "./coax demo"),
    ("test", "./coax test unit driver"),
];

/// Runs the commands on each release, or on those in the filter, or only some of them.
///
/// # Errors
///
/// There is no room, or what makes a root cannot be installed.
pub fn run(results: &mut Results, options: &Test, install: bool) -> Result<()> {
    let wanted = |release: &&Release| {
        let mut filter = options.filter.iter();
        options.filter.is_empty() || filter.any(|text| name_of(release).contains(text.as_str()))
    };
    let releases: Vec<&Release> = RELEASES.iter().filter(wanted).collect();
    if !nix::unistd::geteuid().is_root() {
        for release in releases {
            let reason = "only root can make a root file system and enter it".to_owned();
            results.add(&["fresh"], name_of(release), Outcome::Skipped(reason));
        }
        return Ok(());
    }
    host_packages::ensure(&[Group::Fresh, Group::Root], install)?;
    let wanted = |(name, _): &&(&str, &str)| {
        let only = options.only.as_deref();
        only.is_none_or(|text| name.contains(text))
    };
    let commands: Vec<_> = COMMANDS.iter().filter(wanted).collect();
    ensure!(
        !commands.is_empty(),
        "No command of the suite has that in its name"
    );
    for release in releases {
        on(results, release, &commands)?;
    }
    Ok(())
}

/// Name in reports.
fn name_of(release: &Release) -> String {
    format!("Debian {}", release.number)
}

fn on(results: &mut Results, release: &Release, commands: &[&(&str, &str)]) -> Result<()> {
    let folder = cache::root()?.join("test").join("fresh");
    cache::make_folder(&folder)?;
    cache::check_space(&folder, NEEDED_MIB, &name_of(release))?;
    let log = folder.join(format!("{}.log", release.codename));
    fs::write(&log, "").with_context(|| format!("Cannot write {}", log.display()))?;
    let root = folder.join(release.codename);

    let made = step(results, release, "root", || {
        let root = Root::make(release, &[], root.clone(), &log)?;
        root.reach_as_here()?;
        clone(&root, &log)?;
        Ok(root)
    })?;
    let Some(root) = made else { return Ok(()) };
    for (name, command) in commands {
        let ran = step(results, release, name, || {
            let mut entered = root.command(CHECKOUT, command);
            tool::run_logged(&mut entered, command, &log, |_| {})
        })?;
        if ran.is_none() {
            outln!("  {} is as that left it", root.folder().display())?;
            return Ok(());
        }
    }
    root.remove()
}

/// A step with its time; `None` if it failed.
fn step<T>(
    results: &mut Results,
    release: &Release,
    name: &str,
    body: impl FnOnce() -> Result<T>,
) -> Result<Option<T>> {
    let name = format!("{}: {name}", name_of(release));
    let progress = Progress::start(&name);
    let began = Instant::now();
    let outcome = body();
    let seconds = began.elapsed().as_secs_f64();
    let took = format!("{:.1} min ({seconds:.0} s)", seconds / 60.0);
    match outcome {
        Ok(value) => {
            progress.finish();
            outln!("  ok {name}: {took}")?;
            let test = TestResult::new(&["fresh"], name, Outcome::Passed);
            results.take(test.took(began.elapsed()));
            Ok(Some(value))
        }
        Err(error) => {
            progress.abandon();
            results.broken(&["fresh"], &name, &format!("after {took}: {error:#}"));
            Ok(None)
        }
    }
}

/// Clones this checkout's last commit into the root.
fn clone(root: &Root, log: &Path) -> Result<()> {
    let checkout = cache::checkout();
    let mut status = Command::new("git");
    status.arg("-C").arg(&checkout);
    status.args(["status", "--porcelain", "--untracked-files=no"]);
    let changed = tool::output_of(&mut status).context("This checkout is no clone")?;
    ensure!(
        changed.is_empty(),
        "A clone has commits only, and here are changes that are in none:\n{changed}"
    );
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet", "--no-hardlinks"]);
    clone.arg(checkout).arg(root.path(CHECKOUT));
    tool::run_logged(&mut clone, "Cloning this checkout", log, |_| {})
}

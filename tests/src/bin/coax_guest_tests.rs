// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest half of the VM tests: lists the cases, or runs them and prints KTAP.
//!
//! Exit status: 0 if nothing failed, 1 if something did, 2 for a usage error.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use anyhow::{Context, Result};
use coax_program::{errln, outln, signals, status};
use vm_tests::bench;
use vm_tests::case::Entry;
use vm_tests::cases;
use vm_tests::guest::hmm_errors;
use vm_tests::guest::runner::{self, Verdict};
use vm_tests::soak;
use vm_tests::stress;
use vm_tests::trial;

/// The program's name.
const NAME: &str = "coax-guest-tests";
const USAGE: &str = "\
Usage: coax-guest-tests list            print the name of each case and what it shows
       coax-guest-tests run [CASE…]     run the cases of these full names, or all
       coax-guest-tests hmm-errors      print what comes of bad input to /dev/hmm_dmirrorN
       coax-guest-tests fairness        time faults of the device beside other processes with it
       coax-guest-tests invalidation W  time invalidations while commands of kind W are at work
       coax-guest-tests soak PLAN       run stock programs in a long storm, as the host planned it
       coax-guest-tests stress PLAN     run stress-ng in a storm, as the host planned it
       coax-guest-tests trial PLAN      make the points of a trial, as the host planned it";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    coax_program::finish(NAME, answer(&args))
}

fn answer(args: &[OsString]) -> Result<ExitCode> {
    signals::allow_waiting().context("Cannot wait for programs")?;
    let Some((command, rest)) = args.split_first() else {
        return Ok(usage("No command given"));
    };
    // No command is anything but plain text.
    match (command.to_str().unwrap_or_default(), rest) {
        ("list", []) => {
            for entry in cases::all() {
                outln!("{}: {}", entry.full_name(), entry.case.shows)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        ("run", names) => run(names),
        ("hmm-errors", []) => done(hmm_errors::run()),
        ("fairness", []) => done(bench::fairness::run()),
        ("invalidation", [work]) => done(bench::invalidation::run(&work.to_string_lossy())),
        ("soak", [plan]) => done(soak::guest::run(plan.as_ref())),
        ("stress", [plan]) => done(stress::guest::run(plan.as_ref())),
        ("trial", [plan]) => done(trial::guest::run(plan.as_ref())),
        // What `run` starts for each case.
        ("case", [name]) => Ok(match find(name) {
            Ok(entry) => runner::run_here(entry.case),
            Err(status) => status,
        }),
        ("help" | "--help", []) => {
            outln!("{USAGE}")?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(usage(&format!("Unknown arguments {args:?}"))),
    }
}

fn run(names: &[OsString]) -> Result<ExitCode> {
    let found = names.iter().map(|name| find(name));
    let entries: Vec<Entry> = match found.collect() {
        Ok(_) if names.is_empty() => cases::all().collect(),
        Ok(entries) => entries,
        Err(status) => return Ok(status),
    };
    match runner::run(&entries) {
        Ok(verdict) => Ok(status::exit_code(verdict == Verdict::Passed)),
        Err(error) if coax_program::reader_has_gone(&error) => Err(error),
        Err(error) => {
            outln!("Bail out! {error:#}")?;
            Ok(ExitCode::from(status::FAILED))
        }
    }
}

/// The case of this full name, or the status to end with.
fn find(name: &OsStr) -> Result<Entry, ExitCode> {
    let found = name.to_str().and_then(cases::find);
    found.ok_or_else(|| usage(&format!("No case {name:?}")))
}

fn done(ran: Result<()>) -> Result<ExitCode> {
    ran.map(|()| ExitCode::SUCCESS)
}

fn usage(problem: &str) -> ExitCode {
    errln!("{NAME}: {problem}\n{USAGE}");
    ExitCode::from(status::USAGE)
}

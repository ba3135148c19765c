// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest half of the VM tests: lists the cases, or runs them and prints KTAP.
//!
//! Exit status: 0 if nothing failed, 1 if something did, 2 for a usage error.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use vm_tests::bench;
use vm_tests::case::Entry;
use vm_tests::cases;
use vm_tests::guest::hmm_errors;
use vm_tests::guest::runner::{self, Verdict};
use vm_tests::soak;
use vm_tests::stress;
use vm_tests::trial;

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
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => return usage("No command given"),
    };
    match (command, rest) {
        ("list", []) => {
            for entry in cases::all() {
                println!("{}: {}", entry.full_name(), entry.case.shows);
            }
            ExitCode::SUCCESS
        }
        ("run", names) => run(names),
        ("hmm-errors", []) => status(hmm_errors::run()),
        ("fairness", []) => status(bench::fairness::run()),
        ("invalidation", [work]) => status(bench::invalidation::run(work)),
        ("soak", [plan]) => status(soak::guest::run(plan.as_ref())),
        ("stress", [plan]) => status(stress::guest::run(plan.as_ref())),
        ("trial", [plan]) => status(trial::guest::run(plan.as_ref())),
        // What `run` starts for each case.
        ("case", [name]) => match cases::find(name) {
            Some(entry) => runner::run_here(entry.case),
            None => usage(&format!("No case {name:?}")),
        },
        ("help" | "--help", []) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => usage(&format!("Unknown arguments {args:?}")),
    }
}

fn run(names: &[String]) -> ExitCode {
    let entries: Vec<Entry> = if names.is_empty() {
        cases::all().collect()
    } else {
        let found = names
            .iter()
            .map(|name| cases::find(name).ok_or(name))
            .collect();
        match found {
            Ok(entries) => entries,
            Err(name) => return usage(&format!("No case {name:?}")),
        }
    };
    match runner::run(&entries) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            println!("Bail out! {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn status(ran: anyhow::Result<()>) -> ExitCode {
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coax-guest-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("coax-guest-tests: {problem}\n{USAGE}");
    ExitCode::from(2)
}

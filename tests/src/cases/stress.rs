// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs that strain the kernel's memory management, while their memory moves.

use std::time::Duration;

use anyhow::{ensure, Result};
use coax_program::outln;

use crate::case;
use crate::case::{CaseResult, Subject, Vm};
use crate::guest::program::{installed, run};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "stress",
    cases: &[case!(
        advice_and_locks_in_a_storm,
        "every advice of madvise, children, and locked pages"
    )
    .in_vm(Vm::Tree)
    .limit(LIMIT)],
};

/// Two runs of some seconds, which end late on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs stress-ng with these stressors alone and then, for so many seconds, in a storm: it has to end alike.
fn strain(stressors: &[&str], seconds: u32) -> Result<()> {
    installed("stress-ng")?;
    let stress = |seconds: u32| {
        let mut argv = vec!["stress-ng".to_owned(), "--quiet".to_owned()];
        argv.extend(stressors.iter().map(|&arg| arg.to_owned()));
        argv.extend(["--timeout".to_owned(), seconds.to_string()]);
        argv
    };
    let alone = stress(1);
    let alone: Vec<&str> = alone.iter().map(String::as_str).collect();
    let plain = run(&alone, "")?;
    let long = stress(seconds);
    let mut storm = vec!["coaxctl", "storm", "--"];
    storm.extend(long.iter().map(String::as_str));
    let stormy = run(&storm, "")?;
    outln!("{}", String::from_utf8_lossy(&stormy.stderr))?;
    ensure!(
        stormy.status == plain.status,
        "{stressors:?} ended with {} in a storm, with {} alone",
        stormy.status,
        plain.status
    );
    Ok(())
}

fn advice_and_locks_in_a_storm() -> CaseResult {
    strain(&["--madvise", "2", "--mlock", "1"], 10)
}

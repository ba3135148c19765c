// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad input: the same calls on both drivers, and where the errno differs.
//!
//! `coax-guest-tests hmm-errors` makes the calls and prints `errno NAME VALUE` for each, at last
//! `errnos COUNT`. It knows no right answers: those are what `test_hmm` gives.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::side::Driver;
use crate::commands::test::results::{Results, Verdict};
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{Vm, VmConfig};
use coax_images::progress::Progress;
use coax_program::outln;
use coax_program::output::OutputError;

/// Longest life of a VM; the calls take some seconds.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// The errno, or `ok`, of each call by its name.
type Errnos = BTreeMap<String, String>;

/// Makes the calls on both drivers and takes what came of it as results.
pub fn run(results: &mut Results, images: &Images) -> Result<(), OutputError> {
    let both =
        calls(images, Driver::Coax).and_then(|coax| Ok((coax, calls(images, Driver::TestHmm)?)));
    let name = "hmm: bad input gives the errno of test_hmm";
    match both {
        Ok((coax, test_hmm)) => {
            let differences = differences(&coax, &test_hmm);
            outln!(
                "  bad input: {} calls, {} answered otherwise than by test_hmm",
                coax.len(),
                differences.len()
            )?;
            for line in &differences {
                outln!("    {line}")?;
            }
            let verdict = if differences.is_empty() {
                Verdict::Passed
            } else {
                Verdict::Failed
            };
            results.add(name.into(), verdict);
        }
        Err(error) => results.broken(name, &format!("{error:#}")),
    }
    Ok(())
}

/// Makes the calls on one driver.
fn calls(images: &Images, driver: Driver) -> Result<Errnos> {
    let progress = Progress::start(&format!("Bad input to {driver}"));
    let config = VmConfig {
        timeout: Some(LIMIT),
        ..driver.config()
    };
    let script = format!("{}exec coax-guest-tests hmm-errors", driver.load());
    let outcome = Vm::start(images, &config, &Job::new(["sh", "-c", &script]))
        .and_then(Vm::wait)
        .with_context(|| format!("Bad input to {driver} took the VM"))?;
    progress.finish();
    read(&outcome.stdout_text()).with_context(|| {
        let errors = outcome.stderr_text();
        format!("Bad input to {driver}: {}\n{errors}", outcome.exit)
    })
}

/// Reads what the program printed.
fn read(text: &str) -> Result<Errnos> {
    let mut errnos = Errnos::new();
    let mut announced = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["errno", name, value] => {
                let before = errnos.insert(name.into(), value.into());
                ensure!(before.is_none(), "{name} came twice");
            }
            ["errnos", count] => announced = count.parse().ok(),
            _ => {}
        }
    }
    let count = errnos.len();
    ensure!(
        announced == Some(count) && count > 0,
        "{count} calls, but {announced:?} announced"
    );
    Ok(errnos)
}

/// A line for each call that the drivers do not both answer, or not alike.
fn differences(coax: &Errnos, test_hmm: &Errnos) -> Vec<String> {
    let mut names: Vec<&String> = coax.keys().chain(test_hmm.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let differs = |name: &String| {
        let (ours, wanted) = (coax.get(name), test_hmm.get(name));
        let word = |errno: Option<&String>| errno.map_or("no answer", String::as_str).to_owned();
        (ours != wanted).then(|| format!("{name}: {}, not {}", word(ours), word(wanted)))
    };
    names.into_iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "errno private.read.null EINVAL\nother\nerrno private.read.ok ok\nerrnos 2\n";

    #[test]
    fn every_call_has_to_have_arrived() {
        assert_eq!(read(TEXT).expect("complete").len(), 2);
        let error = read(&TEXT[..TEXT.len() - 9]).expect_err("no end");
        assert!(error.to_string().contains("announced"), "{error}");
        assert!(read(&TEXT.replace("errnos 2", "errnos 3")).is_err());
        assert!(read(&TEXT.replace("read.ok", "read.null")).is_err());
        assert!(read("errnos 0").is_err());
    }

    #[test]
    fn what_differs_or_is_missing_is_named() {
        let ours = read(TEXT).expect("complete");
        assert_eq!(differences(&ours, &ours), Vec::<String>::new());
        let theirs = read(&TEXT.replace("null EINVAL", "null EFAULT")).expect("complete");
        let lines = differences(&ours, &theirs);
        assert_eq!(lines, ["private.read.null: EINVAL, not EFAULT"]);
        let lines = differences(&Errnos::new(), &ours);
        assert_eq!(lines[1], "private.read.ok: no answer, not ok");
        assert_eq!(differences(&ours, &Errnos::new()).len(), 2);
    }
}

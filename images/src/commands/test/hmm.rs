// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `hmm`: the kernel's own tests of this subject on coax, beside the kernel's own driver.
//!
//! The driver for which they were written, `test_hmm`, does not pass them all and can take the
//! kernel with it; it is the yardstick and no reason to fail. On coax all have to pass.

mod errors;
mod harness;
mod report;
mod side;

use std::time::Instant;

use anyhow::Result;
use coax_results::{Outcome, TestResult};

use super::part::Part;
use super::results::Results;
use crate::cli::Test;
use crate::commands::announce;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::result_file::ResultFile;
use coax_program::outln;
use report::{sums_of, Report};
use side::{Driver, Side};

/// The result that is of the whole suite.
const ALL: &str = "all tests pass without a kernel warning";

/// The names of all tests, as a part of a run is made of them.
///
/// # Errors
///
/// The images could not be built, or the program does not list its tests.
pub fn names(options: &Test, install: bool) -> Result<Vec<String>> {
    let images = Images::build(&options.kernel.which, install)?;
    let mut names = side::listed(&images, &options.filter)?;
    if options.filter.is_empty() {
        names.push(errors::NAME.into());
    }
    Ok(names)
}

/// Runs the tests on both drivers, and shows and writes what came of them.
///
/// # Errors
///
/// The images could not be built, or the JSON could not be written.
pub fn run(
    results: &mut Results,
    options: &Test,
    part: &Part,
    json: Option<ResultFile>,
    install: bool,
) -> Result<()> {
    let images = Images::build(&options.kernel.which, install)?;
    let machine = announce(&images, &Mode::MOVING)?;
    results.ran_on(&machine);
    let is_here = |name: &str| part.has(&format!("hmm/{name}"));
    let mut names = side::listed(&images, &options.filter)?;
    names.retain(|name| is_here(name));
    let began = Instant::now();
    let mut coax = Vec::new();
    let mut test_hmm = Side::default();
    if !names.is_empty() {
        coax = on_coax(results, &images, options, &names)?;
        test_hmm = side::run(&images, Driver::TestHmm, &names).unwrap_or_else(|error| {
            results.broken(&["hmm"], "tests run on test_hmm", &format!("{error:#}"));
            Side::default()
        });
    }
    for end in &test_hmm.bad_ends {
        let text = end.to_string();
        let first = text.lines().next().unwrap_or_default();
        outln!("  a VM with test_hmm did not end well: {first}")?;
        if let Some(why) = side::known_defect(first) {
            outln!("    {why}")?;
        }
    }
    let took = began.elapsed();

    if options.filter.is_empty() && is_here(errors::NAME) {
        errors::run(results, &images)?;
    }

    let report = Report::new(&coax, &test_hmm);
    if !names.is_empty() {
        outln!("{report}")?;
    }
    if coax.iter().any(|side| !side.ran.is_empty()) {
        for (name, outcome) in report.of_coax() {
            results.add(&["hmm"], name, outcome);
        }
        // What passed with a complaint of the kernel, or was skipped, is not what is asked for.
        let outcome = Outcome::of(report.coax.clean());
        results.take(TestResult::new(&["hmm"], ALL, outcome).took(took));
    }
    if let Some(file) = json {
        file.json(&machine.report(&report))?;
    }
    Ok(())
}

/// Runs the half of the suite that is on coax as often as it is asked for.
fn on_coax(
    results: &mut Results,
    images: &Images,
    options: &Test,
    names: &[String],
) -> Result<Vec<Side>> {
    let mut sides = Vec::new();
    for round in 1..=options.repeat {
        match side::run(images, Driver::Coax, names) {
            Ok(side) => {
                outln!(
                    "  coax, round {round} of {}: {}",
                    options.repeat,
                    sums_of(&side)
                )?;
                for end in &side.bad_ends {
                    let name = "a VM with coax ends well";
                    results.broken(&["hmm"], name, &end.to_string());
                }
                sides.push(side);
            }
            Err(error) => {
                results.broken(&["hmm"], "tests run on coax", &format!("{error:#}"));
                sides.push(Side::default());
            }
        }
    }
    Ok(sides)
}

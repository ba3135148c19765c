// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `hmm`: the kernel's own tests of this subject on coax, beside the kernel's own driver.
//!
//! The driver for which they were written, `test_hmm`, does not pass them all and can take the
//! kernel with it; it is the yardstick and no reason to fail. On coax all have to pass.

mod errors;
mod harness;
mod report;
mod side;

use anyhow::Result;

use super::results::{Results, Verdict};
use crate::cli::Test;
use crate::commands::announce;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::result_file::ResultFile;
use coax_program::outln;
use report::{sums_of, Report};
use side::{Driver, Side};

/// Runs the tests on both drivers, and shows and writes what came of them.
///
/// # Errors
///
/// The images could not be built, or the JSON could not be written.
pub fn run(
    results: &mut Results,
    options: &Test,
    json: Option<ResultFile>,
    install: bool,
) -> Result<()> {
    let images = Images::build(&options.kernel.which, install)?;
    let machine = announce(&images, &Mode::MOVING)?;
    let names = side::listed(&images, &options.filter)?;
    let mut coax = Vec::new();
    for round in 1..=options.repeat {
        match side::run(&images, Driver::Coax, &names) {
            Ok(side) => {
                outln!(
                    "  coax, round {round} of {}: {}",
                    options.repeat,
                    sums_of(&side)
                )?;
                for end in &side.bad_ends {
                    results.broken("hmm: a VM with coax ends well", &end.to_string());
                }
                coax.push(side);
            }
            Err(error) => {
                results.broken("hmm: tests run on coax", &format!("{error:#}"));
                coax.push(Side::default());
            }
        }
    }
    let test_hmm = side::run(&images, Driver::TestHmm, &names).unwrap_or_else(|error| {
        results.broken("hmm: tests run on test_hmm", &format!("{error:#}"));
        Side::default()
    });
    for end in &test_hmm.bad_ends {
        let text = end.to_string();
        let first = text.lines().next().unwrap_or_default();
        outln!("  a VM with test_hmm did not end well: {first}")?;
    }

    if options.filter.is_empty() {
        errors::run(results, &images)?;
    }

    let report = Report::new(&coax, &test_hmm);
    outln!("{report}")?;
    if coax.iter().any(|side| !side.ran.is_empty()) {
        judge(results, &report);
    }
    if let Some(file) = json {
        file.json(&machine.report(&report))?;
    }
    Ok(())
}

/// Takes the results of coax. What passed with a complaint of the kernel, or was skipped, is not
/// what is asked for.
fn judge(results: &mut Results, report: &Report) {
    for (name, verdict) in report.of_coax() {
        results.add(format!("hmm: {name}"), verdict);
    }
    let verdict = if report.coax.clean() {
        Verdict::Passed
    } else {
        Verdict::Failed
    };
    results.add(
        "hmm: all tests pass without a kernel warning".into(),
        verdict,
    );
}

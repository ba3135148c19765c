// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `driver`: its build against a kernel, and its tests that need none.

use std::time::Instant;

use anyhow::Result;
use coax_results::Outcome;

use super::results::{CargoOutput, Results};
use super::suites::{log, step, summary};
use super::untouched::Untouched;
use crate::cli::Test;
use coax_images::cache::Lock;
use coax_images::{guest, tool};

/// The driver's Makefile: what the kernel tree must have, the module, and the host tests.
pub fn run(results: &mut Results, options: &Test, install: bool) -> Result<()> {
    let kernel = {
        let _lock = Lock::take()?;
        options.kernel.which.kernel.build(install)?
    };
    let log = log("driver")?;
    let before = Untouched::now(&kernel)?;
    let mut make = guest::driver_make(&kernel)?;
    tool::run_logged(
        make.arg("clean"),
        "Cleaning the driver's folder",
        &log,
        |_| {},
    )?;
    for (name, target) in [
        ("kernel has what it needs", "check"),
        ("module builds", "modules"),
    ] {
        let mut make = guest::driver_make(&kernel)?;
        make.arg(target);
        step(results, &["driver"], name, make, &log);
    }
    let name = "nothing in the kernel's tree has changed";
    match before.check(&kernel) {
        Ok(()) => results.add(&["driver"], name, Outcome::Passed),
        Err(error) => results.broken(&["driver"], name, &format!("{error:#}")),
    }
    let from = results.len();
    let mut output = CargoOutput::default();
    let mut make = guest::driver_make(&kernel)?;
    make.arg("test");
    let began = Instant::now();
    let ran = tool::run_logged(
        &mut make,
        "Tests of the driver's pure parts",
        &log,
        |line| {
            if let Some(test) = output.line("driver", line) {
                results.take(test);
            }
        },
    );
    results.step(&["driver"], "pure parts", began.elapsed(), ran);
    summary(results, from, "tests of the driver's pure parts")?;
    Ok(())
}

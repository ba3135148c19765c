// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax bench migrate`: the speed of migration beside the kernel's own driver and the host.

mod flatness;
mod own;
mod plot;
mod report;
mod rounds;
mod speeds;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{ensure, Result};
use serde_json::json;

use super::busy::Busy;
use super::goals;
use crate::cli::Migrate;
use crate::commands::{announce, create, exit_code};
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::machine::Translation;
use coax_program::{errln, outln, status};
use own::Own;
use report::Report;

/// Measures everything, prints it with a line for each goal, and writes what is asked for.
pub fn run(options: &Migrate, install: bool) -> Result<ExitCode> {
    if options.kernel.which.translation() == Translation::Pcie {
        errln!(
            "coax: bench migrate moves private memory, which has no address that an IOMMU could give: leave \
             --translation out"
        );
        return Ok(status::USAGE.into());
    }
    let json = create(&options.json)?;
    let svg = create(&options.svg)?;
    let images = Images::build(options.kernel.ready(install)?, install)?;
    let machine = announce(&images, &Mode::MOVING)?;

    let (report, goals) = if options.busy {
        let mut busy = Busy::start()?;
        let (coax, test_hmm) = rounds::run(&images, options.rounds)?;
        ensure!(
            busy.is_at_work()?,
            "The other VM has ended before the measurement"
        );
        let report = Report::new(&coax, &test_hmm, &Own::default(), &BTreeMap::new());
        (report, goals::MIGRATE_BUSY)
    } else {
        let memcpy = own::on_the_host(&images)?;
        let (coax, test_hmm) = rounds::run(&images, options.rounds)?;
        let own = own::run(&images)?;
        (Report::new(&coax, &test_hmm, &own, &memcpy), goals::MIGRATE)
    };
    outln!("\n{report}")?;

    outln!("What must be reached")?;
    let judged = goals::judge(goals, &report.measured());
    judged.iter().try_for_each(|goal| outln!("  {goal}"))?;
    let passed = judged.iter().all(|goal| goal.passed);
    if let Some(file) = json {
        let whole = json!({
            "verdict": if passed { "pass" } else { "fail" },
            "rounds": options.rounds,
            "busy": options.busy,
            "rows": report.rows,
            "flatness": report.flatness,
            "goals": judged,
        });
        file.json(&machine.report(whole))?;
    }
    if let Some(file) = svg {
        plot::write(file, &report.rows)?;
    }
    Ok(exit_code(passed))
}

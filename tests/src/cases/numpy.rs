// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stock programs of this machine on the BLAS drop-in: numpy as the distribution has it, and a program
//! in C that was linked with libblas and with nothing of this project.
//!
//! Every call is sent to the device, whatever it costs. The same work without the library gives what
//! the result is compared with; what rounding may make of it says `numpy_work.py`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use coax_program::outln;
use serde_json::Value;

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject, Vm};
use crate::guest::blas::Reports;
use crate::guest::program::{installed, output_of};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "numpy",
    cases: &[
        case!(a_product_is_the_cpus, "A @ B, doubles")
            .in_vm(Vm::Tree)
            .limit(LIMIT),
        case!(systems_are_solved_as_by_the_cpu, "linalg.solve")
            .in_vm(Vm::Tree)
            .limit(LIMIT),
        case!(singular_values_are_the_cpus, "linalg.svd")
            .in_vm(Vm::Tree)
            .limit(LIMIT),
        case!(a_convolution_is_the_cpus, "an image in singles, by GEMM")
            .in_vm(Vm::Tree)
            .limit(LIMIT),
        case!(
            nan_and_infinity_come_through,
            "in A and in B, where the CPU has them"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            a_linked_program_is_switched_by_preload_and_by_path,
            "least squares in C by syrk, symm and trsm"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            the_machine_is_switched_by_alternatives_and_back,
            "update-alternatives, as an administrator calls it"
        )
        .in_vm(Vm::Tree)
        .modes(&[Mode::Private])
        .limit(LIMIT),
    ],
};

/// Two starts of Python on an emulated CPU, from files of the host.
const LIMIT: Duration = Duration::from_secs(180);
const WORK: &str = include_str!("../../../guest-driver/blas/bench/numpy_work.py");
/// The drop-in as it comes with the guest.
const DROP_IN: &str = "/run/coax/usr/lib/coax";
/// Where it is installed on a machine.
const INSTALLED: &str = "/usr/lib/coax";
/// The LAPACK that calls the BLAS by name, if it is there.
const LAPACK: &str = "/usr/lib/x86_64-linux-gnu/lapack";
const REPORT: &str = "/tmp/numpy-report.json";
const PROGRAM: &str = "/run/coax/bin/normal_equations";
/// Rows, unknowns and right-hand sides: several blocks of each routine.
const SHAPE: [&str; 3] = ["300", "200", "100"];
/// Its largest difference from the known solution. The squared condition of a matrix of random numbers
/// of this shape is below 100, and 300 products of doubles round to 300 · 2⁻⁵³: 3e-12, and some room.
const SHAPE_TOLERANCE: f64 = 1e-11;
/// Debian's name of the choice.
const ALTERNATIVE: &str = "libblas.so.3-x86_64-linux-gnu";
const LINK: &str = "/usr/lib/x86_64-linux-gnu/libblas.so.3";

/// Adds what sends every call to the device.
fn offloading(command: &mut Command) -> &mut Command {
    command
        .env("COAX_BLAS_MIN_FLOPS", "1")
        .env("COAX_BLAS_STATS", REPORT)
}

/// Runs a program that prints a line of JSON.
fn line_of(command: &mut Command) -> Result<Value> {
    let output = command
        .output()
        .with_context(|| format!("Running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} prints no JSON"))
}

fn number(line: &Value, name: &str) -> Result<f64> {
    let value = line[name].as_f64();
    value.with_context(|| format!("No number {name} in {line}"))
}

/// Does a work of numpy with the drop-in and without, and demands that the results agree and that calls
/// of the routine went to the device.
fn same_with_the_device(work: &str, size: &str, routine: &str) -> CaseResult {
    installed("python3")?;
    let python = "/usr/bin/python3";
    let numpy = Command::new(python).args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|output| output.status.success()) {
        return Err(Skip(format!("{python} has no numpy (package python3-numpy)")).into());
    }
    let script = "/tmp/numpy_work.py";
    fs::write(script, WORK).context("Writing the script")?;
    let base = |result: &str| {
        let mut command = Command::new(python);
        command.args([script, work, size, result]);
        command
    };
    let mut with = base("/tmp/numpy-device.npy");
    // Preloaded it would bring the BLAS behind it along, and of OpenBLAS that has a dgesv_ of its own.
    with.env("LD_LIBRARY_PATH", format!("{DROP_IN}:{LAPACK}"));
    line_of(offloading(&mut with))?;
    let reports = Reports::take(Path::new(REPORT))?;
    let mut without = base("-");
    let line = line_of(without.arg("/tmp/numpy-device.npy"))?;
    outln!("# {line}")?;
    let (difference, tolerance) = (number(&line, "difference")?, number(&line, "tolerance")?);
    ensure!(
        difference <= tolerance,
        "{work} of {size}: {difference:e} from the CPU's result, more than {tolerance:e}"
    );
    ensure!(reports.sum(routine) > 0, "No {routine} was offloaded");
    for reason in ["fault", "busy", "lost", "absent"] {
        ensure!(reports.sum(reason) == 0, "Calls failed: {reason}");
    }
    Ok(())
}

fn a_product_is_the_cpus() -> CaseResult {
    same_with_the_device("product", "200", "dgemm")
}

fn systems_are_solved_as_by_the_cpu() -> CaseResult {
    same_with_the_device("solve", "200", "dgemm")
}

fn singular_values_are_the_cpus() -> CaseResult {
    same_with_the_device("svd", "120", "dgemm")
}

fn a_convolution_is_the_cpus() -> CaseResult {
    same_with_the_device("convolution", "48", "sgemm")
}

fn nan_and_infinity_come_through() -> CaseResult {
    same_with_the_device("special", "100", "dgemm")
}

/// Runs the program in C and looks at its solution; whether the device was at work is the answer.
fn solved(command: &mut Command) -> Result<bool> {
    let line = line_of(offloading(command.args(SHAPE)))?;
    let difference = number(&line, "difference")?;
    ensure!(
        difference <= SHAPE_TOLERANCE,
        "The solution is {difference:e} from the right one"
    );
    if !Path::new(REPORT).exists() {
        return Ok(false);
    }
    let reports = Reports::take(Path::new(REPORT))?;
    for routine in ["dsyrk", "dsymm", "dtrsm"] {
        ensure!(reports.sum(routine) > 0, "No {routine} was offloaded");
    }
    Ok(true)
}

fn a_linked_program_is_switched_by_preload_and_by_path() -> CaseResult {
    ensure!(!solved(&mut Command::new(PROGRAM))?, "Used without asking");
    let mut preloaded = Command::new(PROGRAM);
    preloaded.env("LD_PRELOAD", format!("{DROP_IN}/libblas.so.3"));
    ensure!(solved(&mut preloaded)?, "LD_PRELOAD had no effect");
    let mut found = Command::new(PROGRAM);
    found.env("LD_LIBRARY_PATH", DROP_IN);
    ensure!(solved(&mut found)?, "LD_LIBRARY_PATH had no effect");
    Ok(())
}

fn the_machine_is_switched_by_alternatives_and_back() -> CaseResult {
    installed("update-alternatives")?;
    let library = format!("{INSTALLED}/libblas.so.3");
    let before = fs::canonicalize(LINK).with_context(|| format!("Where {LINK} leads"))?;
    output_of(&[
        "update-alternatives",
        "--install",
        LINK,
        ALTERNATIVE,
        &library,
        "200",
    ])?;
    let switched = fs::canonicalize(LINK)?;
    let outcome = solved(&mut Command::new(PROGRAM));
    output_of(&["update-alternatives", "--remove", ALTERNATIVE, &library])?;
    ensure!(
        switched == Path::new(&library),
        "{LINK} leads to {switched:?}"
    );
    ensure!(outcome?, "The alternative had no effect");
    ensure!(
        fs::canonicalize(LINK)? == before,
        "{LINK} does not lead back"
    );
    ensure!(!solved(&mut Command::new(PROGRAM))?, "Used after removal");
    Ok(())
}

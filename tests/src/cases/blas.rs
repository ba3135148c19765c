// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The BLAS drop-in under an ordinary program on libblas: the CPU's results, whatever becomes of the
//! device.
//!
//! The program is `guest-driver/blas/tests/blas_check.c`. It compares each call with the reference
//! BLAS, and says nothing of devices; that the device was at work is in the library's report.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use coax_program::outln;
use serde_json::Value;

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject, Vm};
use crate::guest::blas::Reports;
use crate::guest::memory::{Mapping, PAGE};
use crate::request::Request;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "blas",
    cases: &[
        case!(
            an_unchanged_program_gets_the_cpus_results,
            "every letter, factor and edge of gemm, syrk, symm and trsm"
        )
        .limit(LONG),
        case!(
            levels_1_and_2_get_the_cpus_results,
            "gemv and dot with steps of all kinds"
        )
        .limit(LONG),
        case!(
            vectors_go_where_the_matrix_is,
            "gemv by measurement, on a matrix that a product has left with the device"
        )
        // Where device memory is a node a product leaves its matrix where it was.
        .modes(&Mode::MOVING)
        .limit(LONG),
        case!(
            the_library_is_found_by_preload_and_by_path,
            "LD_PRELOAD and LD_LIBRARY_PATH"
        )
        .limit(LONG),
        case!(
            nan_overlap_and_misalignment_end_as_on_the_cpu,
            "numbers and memory out of the ordinary"
        ),
        case!(
            wrong_arguments_reach_the_programs_xerbla,
            "the CPU's BLAS refuses them"
        ),
        case!(
            large_calls_are_worth_it_by_measurement,
            "no threshold given"
        )
        .limit(LONG),
        case!(threads_share_the_device, "six threads at once").limit(LONG),
        case!(
            children_have_a_device_of_their_own,
            "fork before and during use"
        )
        .limit(LONG),
        case!(
            a_program_that_closes_all_descriptors_keeps_its_own,
            "as daemons do, between two calls; the library opens the device anew"
        )
        .limit(LONG),
        case!(
            exit_and_exec_in_mid_call_end_the_process,
            "with calls of other threads under way"
        )
        .limit(LONG),
        case!(
            resets_in_mid_call_are_not_noticed,
            "the device taken out of service again and again"
        )
        // A node takes seconds to be emptied, longer than any call.
        .modes(&Mode::MOVING)
        .limit(LONG),
        case!(
            memory_out_of_the_devices_reach_is_the_cpus,
            "a factor in a mapping of device registers"
        ),
        case!(without_a_device_all_is_the_cpus, "no such file"),
        case!(
            matrices_larger_than_device_memory_are_used_in_place,
            "64 MiB of device memory"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LONG),
        case!(
            a_device_that_dies_in_mid_call_is_not_noticed,
            "the back end killed under calls"
        )
        .in_vm(Vm::DoomedUnseen)
        .limit(LONG),
    ],
};

/// The CPU's share of these comparisons, by a reference BLAS on an emulated CPU.
const LONG: Duration = Duration::from_secs(180);
const CHECK: &str = "/bin/blas_check";
const REFERENCE: &str = "/usr/lib/x86_64-linux-gnu/blas/libblas.so.3";
const DROP_IN: &str = "/usr/lib/coax";
/// What the library tells of each call.
const WHY: &str = "/tmp/blas-why.json";

/// The program with the drop-in in the place of libblas; all calls go to the device.
fn program(cases: &[&str]) -> Command {
    let mut command = Command::new(CHECK);
    command.arg(REFERENCE).args(cases);
    command.env("LD_LIBRARY_PATH", DROP_IN);
    command.env("COAX_BLAS_MIN_FLOPS", "1");
    command
}

/// Runs the program, which must say that all is well, and reads the reports of its processes.
fn checked(command: Command) -> Result<Reports> {
    checked_while(command, |_| Ok(()))
}

/// The same, with something to do when it has begun to speak.
fn checked_while(
    mut command: Command,
    meanwhile: impl FnOnce(&mut dyn BufRead) -> CaseResult,
) -> Result<Reports> {
    let report = PathBuf::from(format!("/tmp/blas-{}.json", std::process::id()));
    command.env("COAX_BLAS_STATS", &report);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().context("Cannot start the program")?;
    let stdout = program.stdout.take().context("It is piped")?;
    let mut stdout = BufReader::new(stdout);
    meanwhile(&mut stdout)?;
    let mut text = String::new();
    stdout
        .read_to_string(&mut text)
        .context("Cannot read what the program says")?;
    let output = program.wait_with_output().context("The program is lost")?;
    succeeded(&text, &output)?;
    Reports::take(&report)
}

fn succeeded(stdout: &str, output: &Output) -> CaseResult {
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "The program ended with {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn an_unchanged_program_gets_the_cpus_results() -> CaseResult {
    let reports = checked(program(&["level3", "large"]))?;
    ensure!(reports.sum("offloaded") > 1000, "The device was not used");
    for reason in ["fault", "busy", "lost", "absent"] {
        ensure!(reports.sum(reason) == 0, "Calls failed: {reason}");
    }
    Ok(())
}

fn levels_1_and_2_get_the_cpus_results() -> CaseResult {
    let reports = checked(program(&["vectors"]))?;
    for routine in ["dgemv", "ddot", "sgemv", "sdot"] {
        ensure!(reports.sum(routine) > 0, "No {routine} was offloaded");
    }
    for reason in ["fault", "busy", "lost", "absent"] {
        ensure!(reports.sum(reason) == 0, "Calls failed: {reason}");
    }
    Ok(())
}

fn vectors_go_where_the_matrix_is() -> CaseResult {
    let mut command = program(&["resident"]);
    command.env_remove("COAX_BLAS_MIN_FLOPS");
    let reports = checked(command)?;
    let report: Value = serde_json::from_str(&reports.0[0]).context("The report")?;
    let offloaded = |routine: &str| report["routines"][routine].as_u64().unwrap_or(0);
    let number = |value: &Value| value.as_f64().context("Not measured");
    let on_device = |what: &str| number(&report["measured_double"][what]);
    // A matrix of 1536² doubles.
    let (flops, pages) = (2.0 * 1536.0 * 1536.0, 4608.0);
    let on_cpu = flops * number(&report["cpu_flop_s"]["dgemv"])?;
    let there = flops * on_device("device_flop_s")?
        + pages * on_device("touch_s")?
        + on_device("command_s")?;
    outln!("# {there:.4} s there, {on_cpu:.4} s on the CPU")?;
    // On a slow kernel a command alone takes as long as the CPU, and no product leaves a matrix.
    if there < 0.3 * on_cpu && offloaded("dgemm") > 0 {
        ensure!(offloaded("dgemv") > 0, "No vector went to the matrix");
    }
    Ok(())
}

fn the_library_is_found_by_preload_and_by_path() -> CaseResult {
    let by_path = checked(program(&["special"]))?.sum("offloaded");
    let mut preloaded = program(&["special"]);
    let folder = Path::new(REFERENCE).parent().context("It has a folder")?;
    preloaded.env("LD_LIBRARY_PATH", folder);
    preloaded.env("LD_PRELOAD", format!("{DROP_IN}/libblas.so.3"));
    let by_preload = checked(preloaded)?.sum("offloaded");
    ensure!(
        by_path == by_preload && by_path > 0,
        "{by_path} and {by_preload} calls"
    );
    Ok(())
}

fn nan_overlap_and_misalignment_end_as_on_the_cpu() -> CaseResult {
    let reports = checked(program(&["special"]))?;
    // What overlaps or is misaligned, in either precision, is handed on; the rest is not.
    ensure!(reports.sum("arguments") == 4, "arguments");
    ensure!(reports.sum("offloaded") == 4, "offloaded");
    Ok(())
}

fn wrong_arguments_reach_the_programs_xerbla() -> CaseResult {
    let reports = checked(program(&["bad_arguments"]))?;
    ensure!(reports.sum("offloaded") == 0, "offloaded");
    Ok(())
}

fn large_calls_are_worth_it_by_measurement() -> CaseResult {
    let mut command = program(&["large"]);
    command.env_remove("COAX_BLAS_MIN_FLOPS");
    command.env("COAX_BLAS_WHY", WHY);
    let reports = checked(command)?;
    ensure!(reports.0[0].contains("measured_double"), "Not measured");
    ensure!(reports.sum("offloaded") > 0, "The device was not used");
    // What is told of each call adds up to that, and says what it was decided by.
    let text = fs::read_to_string(WHY).context("Nothing was told of the calls")?;
    let mut on_device = 0;
    for line in text.lines() {
        let call: Value = serde_json::from_str(line).with_context(|| format!("No JSON: {line}"))?;
        if call["by"] == "device" {
            on_device += 1;
            let expected = ["expected_device_s", "expected_cpu_s"].map(|name| call[name].as_f64());
            ensure!(
                expected.iter().all(Option::is_some),
                "Not what it was decided by: {line}"
            );
        } else {
            let told = call["reason"].is_string() || call["small"].is_u64();
            ensure!(told, "On the CPU for no reason: {line}");
        }
    }
    ensure!(
        on_device == reports.sum("offloaded"),
        "{on_device} calls on the device by what was told of each"
    );
    Ok(())
}

fn threads_share_the_device() -> CaseResult {
    let reports = checked(program(&["threads"]))?;
    ensure!(reports.sum("offloaded") > 0, "The device was not used");
    Ok(())
}

fn children_have_a_device_of_their_own() -> CaseResult {
    // Children end without a report; their results are checked by themselves.
    let reports = checked(program(&["forks"]))?;
    ensure!(reports.sum("lost") == 0, "Calls failed");
    Ok(())
}

fn a_program_that_closes_all_descriptors_keeps_its_own() -> CaseResult {
    let reports = checked(program(&["daemons"]))?;
    ensure!(reports.sum("offloaded") > 0, "The device was not used");
    for reason in ["lost", "absent"] {
        ensure!(reports.sum(reason) == 0, "Calls failed: {reason}");
    }
    Ok(())
}

fn exit_and_exec_in_mid_call_end_the_process() -> CaseResult {
    let reports = checked(program(&["exits", "execs"]))?;
    ensure!(reports.sum("offloaded") > 0, "The device was not used");
    Ok(())
}

fn resets_in_mid_call_are_not_noticed() -> CaseResult {
    let reports = checked(program(&["resets"]))?;
    ensure!(reports.sum("lost") > 0, "No reset met a call");
    Ok(())
}

fn memory_out_of_the_devices_reach_is_the_cpus() -> CaseResult {
    let mut command = program(&["unreachable"]);
    command.env("BLAS_CHECK_MAPPING", device_bar()?);
    let reports = checked(command)?;
    ensure!(reports.sum("fault") == 2, "No fault was seen");
    Ok(())
}

/// PCI device numbers of what has the device's memory, each with the file by which a program can map it as
/// registers.
const BARS: &[(&str, &str)] = &[("0x107f", "resource4"), ("0x1110", "resource2")];

/// The file by which a program can map the device's memory as registers, where the kernel lets it.
fn device_bar() -> Result<PathBuf> {
    for device in fs::read_dir("/sys/bus/pci/devices")? {
        let device = device?.path();
        let id = fs::read_to_string(device.join("device"))?;
        let Some((_, bar)) = BARS.iter().find(|(number, _)| *number == id.trim()) else {
            continue;
        };
        let bar = device.join(bar);
        let file = File::options().read(true).write(true).open(&bar)?;
        let mapped = Mapping::file_shared(file.as_fd(), PAGE, libc::PROT_READ);
        let refused = mapped.err();
        let refused = refused
            .as_ref()
            .and_then(|error| error.downcast_ref::<io::Error>());
        if refused.and_then(io::Error::raw_os_error) == Some(libc::EINVAL) {
            let reason = "the kernel maps no registers that a driver has (CONFIG_IO_STRICT_DEVMEM)";
            return Err(Skip(reason.into()).into());
        }
        return Ok(bar);
    }
    bail!("The device is not on the bus")
}

fn without_a_device_all_is_the_cpus() -> CaseResult {
    let mut command = program(&["large"]);
    command.env("COAX_BLAS_DEVICE", "/dev/coax-that-is-not-there");
    let reports = checked(command)?;
    ensure!(reports.sum("offloaded") == 0, "offloaded");
    ensure!(reports.sum("absent") > 0, "absent");
    Ok(())
}

fn matrices_larger_than_device_memory_are_used_in_place() -> CaseResult {
    let reports = checked(program(&["flat"]))?;
    ensure!(reports.sum("offloaded") == 2, "offloaded");
    for reason in ["fault", "busy", "lost"] {
        ensure!(reports.sum(reason) == 0, "Calls failed: {reason}");
    }
    Ok(())
}

fn a_device_that_dies_in_mid_call_is_not_noticed() -> CaseResult {
    // It goes on until the device is gone, and compares all the time.
    let reports = checked_while(program(&["loss"]), |stdout| {
        let mut line = String::new();
        stdout
            .read_line(&mut line)
            .context("The program is silent")?;
        ensure!(line == "under way\n", "{line}");
        outln!("{}", Request::KillDevice)?;
        Ok(())
    })?;
    ensure!(reports.sum("offloaded") > 0, "The device was not used");
    let unserved = reports.sum("lost") + reports.sum("absent");
    ensure!(unserved > 0, "The device was there to the end");
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What commands say of the machine that they run on.

use std::fs;
use std::process::{Command, Output, Stdio};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use coax_images::images::Which;

/// How the line begins.
const LINE: &str = "Machine: ";

/// Boots a VM by `run` and one by `demo`, and compares what they say with what ran, and with the report.
pub fn is_told(which: &Which) -> Result<()> {
    let ran = coax(which, "run", &["--timeout", "150", "--", "uname", "-r"])?;
    let release = String::from_utf8_lossy(&ran.stdout);
    let line = line_of(&ran.stderr)?;
    let kernel = format!("{LINE}Linux {} (", release.trim_end());
    ensure!(
        line.starts_with(&kernel) && line.contains(", mode private, "),
        "Linux {release} ran in private mode, and coax said: {line}"
    );

    let folder = tempfile::tempdir().context("A temporary folder")?;
    let file = folder.path().join("report");
    let report = file.to_str().context("TMPDIR is no text")?;
    let shown = coax(which, "demo", &["--mode", "coherent", "--json", report])?;
    let line = line_of(&shown.stdout)?;
    let report = fs::read(&file).context("Reading the report")?;
    let report: Value = serde_json::from_slice(&report).context("The report is no JSON")?;
    let machine = &report["machine"];
    ensure!(
        machine["kernel"]["version"] == *release.trim_end()
            && machine["modes"] == serde_json::json!(["coherent"]),
        "Linux {release} ran in coherent mode, and the report has {machine}"
    );
    for part in [
        &machine["kernel"]["source"],
        &machine["kernel"]["version"],
        &machine["qemu"]["source"],
        &machine["qemu"]["version"],
        &machine["device"],
        &machine["translation"],
        &machine["accel"],
        &machine["accel_reason"],
        &machine["modes"][0],
    ] {
        let part = part.as_str();
        let part = part.with_context(|| format!("Something is missing in {machine}"))?;
        ensure!(line.contains(part), "no {part} in: {line}");
    }
    Ok(())
}

/// What a sub-command of `coax` that succeeds wrote.
fn coax(which: &Which, sub_command: &str, args: &[&str]) -> Result<Output> {
    let program = std::env::current_exe().context("Where this program is")?;
    let mut command = Command::new(program);
    command.arg(sub_command).args(which.words()).args(args);
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("Running coax {sub_command}"))?;
    ensure!(
        output.status.success(),
        "coax {sub_command} ended with {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// The one line with the machine.
fn line_of(text: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(LINE)).collect();
    ensure!(
        lines.len() == 1,
        "no single line of the machine in:\n{text}"
    );
    Ok(lines[0].to_owned())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs that a case runs, and how they end.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use crate::case::Skip;

/// Where `program` is in `PATH`.
///
/// # Errors
///
/// A skip, if it is not installed.
pub fn installed(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.ok_or_else(|| Skip(format!("{program} is not installed on this machine")).into())
}

/// Runs a command with this standard input and waits for its end.
pub fn run(argv: &[&str], input: &str) -> Result<Output> {
    let context = || format!("Running {argv:?}");
    let (program, args) = argv.split_first().context("No program")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(context)?;
    // Small enough for the pipe, so that nobody waits for anybody.
    ensure!(input.len() <= 4096, "{} bytes of input", input.len());
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(context)?;
    }
    child.wait_with_output().with_context(context)
}

/// Runs a command that must succeed, and returns what it wrote.
pub fn output_of(argv: &[&str]) -> Result<String> {
    let output = run(argv, "")?;
    ensure!(
        output.status.success(),
        "{argv:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("Output is no text")
}

/// Runs the command as it is and then in a storm, both with the same input, and demands the same output,
/// errors and end. Returns what the storm came to.
pub fn same_in_a_storm(options: &[&str], argv: &[&str], input: &str) -> Result<Value> {
    let plain = run(argv, input)?;
    let report = Path::new("/tmp/storm.json");
    let report_name = report.to_str().unwrap_or_default();
    let mut storm = vec!["coaxctl", "storm", "--json", report_name];
    storm.extend(options);
    storm.push("--");
    storm.extend(argv);
    let stormy = run(&storm, input)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        (stormy.status.code(), stormy.status.signal())
            == (plain.status.code(), plain.status.signal()),
        "{argv:?} ended with {} in a storm, with {} without: {}",
        stormy.status,
        plain.status,
        text(&stormy.stderr),
    );
    ensure!(
        stormy.stdout == plain.stdout,
        "{argv:?} wrote {:?} in a storm, {:?} without",
        text(&stormy.stdout),
        text(&plain.stdout),
    );
    ensure!(
        stormy.stderr == plain.stderr,
        "{argv:?} complained {:?} in a storm, {:?} without",
        text(&stormy.stderr),
        text(&plain.stderr),
    );
    let json = std::fs::read(report).context("The storm's report")?;
    let json: Value = serde_json::from_slice(&json).context("The storm's report")?;
    if !json["error"].is_null() {
        bail!("The storm ended early: {}", json["error"]);
    }
    Ok(json)
}

/// A number of a storm's report.
pub fn number(report: &Value, pointer: &str) -> Result<u64> {
    let value = report.pointer(pointer).and_then(Value::as_u64);
    value.with_context(|| format!("No number {pointer} in {report}"))
}

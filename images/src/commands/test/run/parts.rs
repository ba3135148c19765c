// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parts of the tests as `coax test --list --partition` has them.

use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use coax_images::images::Which;

/// As many parts as CI systems like.
const PARTS: usize = 4;

/// Joins the lists of all parts and compares them with the list of the whole.
pub fn make_the_whole(which: &Which) -> Result<()> {
    let whole = list(which, 1, 1)?;
    ensure!(!whole.is_empty(), "There are no tests");
    let mut joined = Vec::new();
    for shard in 1..=PARTS {
        let part = list(which, shard, PARTS)?;
        ensure!(!part.is_empty(), "Part {shard} of {PARTS} has no tests");
        ensure!(
            part == list(which, shard, PARTS)?,
            "Part {shard} of {PARTS} is another each time"
        );
        joined.extend(part);
    }
    let first = whole
        .iter()
        .zip(&joined)
        .find(|(whole, part)| whole != part);
    ensure!(
        joined == whole,
        "{} tests are in parts, {} in the whole; the first that differ are {first:?}",
        joined.len(),
        whole.len()
    );
    let mut unique = whole.clone();
    unique.sort();
    unique.dedup();
    ensure!(unique.len() == whole.len(), "Two tests have the same name");
    Ok(())
}

/// The tests of a part, in their order.
fn list(which: &Which, shard: usize, of: usize) -> Result<Vec<String>> {
    let program = std::env::current_exe().context("Where this program is")?;
    let mut command = Command::new(program);
    command.args(["test", "vm", "hmm", "--list"]);
    command.arg(format!("--partition=slice:{shard}/{of}"));
    let output = command.args(which.words()).stdin(Stdio::null()).output();
    let output = output.context("Running coax")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "coax ended with {}\n{error}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}

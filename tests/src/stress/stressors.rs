// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which stressors there are, and which are not tried.

use std::process::Command;

use anyhow::{ensure, Context, Result};

/// Classes of stress-ng.
const CLASSES: [&str; 3] = ["vm", "memory", "scheduler"];
/// Before the names of a class.
const NAMES: &str = " stressors: ";

/// Stressors that are not tried, with the reason.
pub const LEFT_OUT: [(&str, &str); 2] = [
    (
        "softlockup",
        "it keeps the kernel from its CPUs until that reports a soft lock-up, which is what it is for",
    ),
    (
        "watchdog",
        "it opens /dev/watchdog, which ends the machine when something goes wrong",
    ),
];

/// Combinations that have shown something, beside what each stressor shows alone.
const COMBINED: [(&str, &[&str]); 2] = [
    ("madvise-mlock", &["--madvise", "2", "--mlock", "1"]),
    ("vm-segv-again", &["--vm-segv", "1"]),
];

/// A run of stress-ng.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its name, that of the stressor if there is one.
    pub name: String,
    /// Arguments that say what runs.
    pub args: Vec<String>,
}

/// All steps in their order, those left out among them: the combinations, then every stressor by name.
pub fn steps() -> Result<Vec<Step>> {
    let mut names = Vec::new();
    for class in CLASSES {
        let output = Command::new("stress-ng")
            .args(["--class", &format!("{class}?")])
            .output();
        let output =
            output.context("Running stress-ng, which has to be installed on this machine")?;
        let text = [output.stdout, output.stderr].concat();
        names.extend(names_in(&String::from_utf8_lossy(&text)));
    }
    ensure!(!names.is_empty(), "stress-ng names no stressors");
    names.sort();
    names.dedup();
    let combined = COMBINED.iter().map(|(name, args)| Step {
        name: (*name).to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    });
    let alone = names.into_iter().map(|name| Step {
        args: vec![format!("--{name}"), "1".to_owned()],
        name,
    });
    Ok(combined.chain(alone).collect())
}

/// The stressors that `stress-ng --class NAME?` prints.
fn names_in(text: &str) -> Vec<String> {
    let lists = text
        .lines()
        .filter_map(|line| Some(line.split_once(NAMES)?.1));
    lists
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_class_are_read() {
        let text = "class 'vm' stressors: bigheap brk vm-segv\n";
        assert_eq!(names_in(text), ["bigheap", "brk", "vm-segv"]);
        assert!(names_in("stress-ng: error: no such class\n").is_empty());
    }
}

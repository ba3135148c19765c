// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cargo in this checkout, wherever the user has it put what it builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cache;
use crate::tool;

/// Where cargo builds: what the user says, else its own place in the checkout.
pub fn target_folder() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    cache::checkout().join(folder)
}

/// Cargo with these words, unimpressed by the cargo that may have started this program.
pub fn command(words: &[&str]) -> Command {
    in_this_checkout(tool::builder("cargo"), words)
}

/// As [`command`], and others have the processors first.
pub fn command_that_yields(words: &[&str]) -> Command {
    let mut nice = tool::builder("nice");
    nice.args(["-n", "10", "cargo"]);
    in_this_checkout(nice, words)
}

fn in_this_checkout(mut cargo: Command, words: &[&str]) -> Command {
    cargo
        .args(words)
        .current_dir(cache::checkout())
        .env("CARGO_TARGET_DIR", target_folder());
    cargo
}

/// Builds by `cargo`, a `cargo build`, and returns what came of it.
///
/// # Errors
///
/// Those of the build, with the log's place.
pub fn build(
    mut cargo: Command,
    title: &str,
    log: &Path,
    watch: impl FnMut(&str),
) -> Result<Built> {
    tool::run_logged(&mut cargo, title, log, watch)?;
    // Once more, with nothing to do but to tell: where things are depends on options in files that only
    // cargo knows.
    let told = tool::output_of(cargo.args(["--quiet", "--message-format=json"]))?;
    let artifacts = told.lines().filter_map(Built::artifacts_in);
    Ok(Built(artifacts.flatten().collect()))
}

/// Files that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub struct Built(Vec<PathBuf>);

/// What is used of a message of cargo's.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

impl Built {
    fn artifacts_in(line: &str) -> Option<Vec<PathBuf>> {
        let message: Message = serde_json::from_str(line).ok()?;
        Some(message.filenames)
    }

    /// The file of this name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn file(&self, name: &str) -> Result<&Path> {
        let mut files = self.0.iter();
        let found = files.find(|file| file.file_name().is_some_and(|other| other == name));
        let found = found.with_context(|| format!("Cargo has built no {name}"))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_what_cargo_tells() {
        let told = r#"{"reason":"compiler-artifact","filenames":["/t/x86/release/prog","/t/lib.rlib"]}
{"reason":"build-script-executed","package_id":"p"}
no JSON
{"reason":"build-finished","success":true}"#;
        let built = Built(
            told.lines()
                .filter_map(Built::artifacts_in)
                .flatten()
                .collect(),
        );
        assert_eq!(
            built.file("prog").expect("it is told of"),
            Path::new("/t/x86/release/prog")
        );
        assert!(built.file("other").is_err());
    }

    #[test]
    fn a_program_is_where_cargo_says_and_not_where_it_usually_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
            std::fs::write(file, text).expect("writable");
        };
        write(
            "Cargo.toml",
            "[package]\nname = \"p\"\nedition = \"2021\"\n[workspace]\n",
        );
        write("src/main.rs", "fn main() {}");
        write(
            ".cargo/config.toml",
            "[build]\ntarget = \"x86_64-unknown-linux-gnu\"\n",
        );
        // An old one, where it would be without that.
        write("target/debug/p", "stale");
        let mut cargo = command(&["build"]);
        cargo
            .current_dir(folder.path())
            .env("CARGO_TARGET_DIR", folder.path().join("target"));
        let built = build(cargo, "A build", &folder.path().join("log"), |_| {});
        let built = built.expect("a program of one line");
        let program = built.file("p").expect("it is built");
        assert_ne!(program, folder.path().join("target/debug/p"));
        assert!(program.is_file(), "{}", program.display());
    }
}

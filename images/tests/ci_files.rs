// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The examples for CI systems, by the schemas that check-jsonschema has of the services. It is no dependency: where it is
//! missing, the tests are ignored by name.
#![expect(
    clippy::print_stdout,
    reason = "it prints as the test harness does, and is none"
)]

use std::path::Path;
use std::process::{Command, ExitCode};

/// Example, and the schema's name.
const FILES: [(&str, &str); 2] = [
    ("github.yml", "vendor.github-workflows"),
    ("gitlab.yml", "vendor.gitlab-ci"),
];

fn main() -> ExitCode {
    println!("\nrunning {} tests", FILES.len());
    let missing = check(&["--version"]).err();
    let mut status = ExitCode::SUCCESS;
    for (file, schema) in FILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../ci")
            .join(file);
        let path = path.to_string_lossy();
        let outcome = match &missing {
            Some(_) => "ignored, check-jsonschema is not installed",
            None => match check(&["--builtin-schema", schema, &path]) {
                Ok(()) => "ok",
                Err(error) => {
                    println!("{error}");
                    status = ExitCode::FAILURE;
                    "FAILED"
                }
            },
        };
        println!("test {file} ... {outcome}");
    }
    status
}

fn check(args: &[&str]) -> Result<(), String> {
    let output = Command::new("check-jsonschema").args(args).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&text).into_owned())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The oldest Rust that is promised, the workspace's `rust-version`, builds what `Cargo.lock` has.

use std::fs;
use std::path::Path;
use std::process::Command;

use coax_images::cache::checkout;
use serde_json::Value;

/// `1.85` or `1.85.1` to numbers that compare.
fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
    let mut next = || parts.next().unwrap_or(0);
    [next(), next(), next()]
}

/// What cargo knows of all packages that this machine's programs are made of.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(checkout())
        .output()
        .expect("cargo runs this test");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

fn promised() -> String {
    let text = fs::read_to_string(checkout().join("Cargo.toml")).expect("readable");
    let workspace: toml::Table = text.parse().expect("cargo reads it");
    let promised = &workspace["workspace"]["package"]["rust-version"];
    promised.as_str().expect("a version").to_owned()
}

#[test]
fn no_package_wants_a_later_rust_than_is_promised() {
    let promised = promised();
    let packages = packages();
    let wanting: Vec<_> = packages
        .iter()
        .filter(|package| {
            let wanted = package["rust_version"].as_str();
            wanted.is_some_and(|wanted| version(wanted) > version(&promised))
        })
        .map(|package| {
            format!(
                "{} {} wants {}",
                package["name"], package["version"], package["rust_version"]
            )
        })
        .collect();
    assert!(
        wanting.is_empty(),
        "Rust {promised} is promised; `cargo update PACKAGE` takes a version for it: {wanting:#?}"
    );
    // With packages of others, and some that say what they want.
    let saying = packages
        .iter()
        .filter(|package| package["rust_version"].is_string());
    assert!(saying.count() > 50, "{} packages", packages.len());
}

#[test]
fn the_script_asks_for_the_rust_that_is_promised() {
    let script = fs::read_to_string(Path::new(&checkout()).join("coax")).expect("readable");
    let line = format!("least={}", promised());
    assert!(script.lines().any(|found| found == line), "no {line}");
}

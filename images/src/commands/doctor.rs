// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax doctor`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::create;
use crate::cli::Doctor;
use coax_images::accel::{self, Choice};
use coax_images::archive::{self, Archive};
use coax_images::availability::{Row, Table};
use coax_images::host_packages::{self, Group};
use coax_images::kernel::Which;
use coax_images::{cache, fetch, guest, tool, virtiofsd};
use coax_program::outln;
use coax_program::output::OutputError;

/// What is written as JSON: each line, and the table.
#[derive(Debug, Serialize)]
struct Report {
    facts: serde_json::Map<String, serde_json::Value>,
    /// With an archive nothing else is taken.
    #[serde(flatten)]
    table: Option<Table>,
}

/// Prints a line for everything that matters; what is not there is no failure.
pub fn run(options: &Doctor) -> Result<ExitCode> {
    let json = create(&options.json)?;
    let archive = archive::here()?;
    let facts = facts(archive.as_ref())?;
    for (name, text) in &facts {
        line(name, text)?;
    }
    let accel = accel::decide(Choice::Auto).ok();
    let accel = accel.map(|decision| decision.accel);
    let table = archive.is_none().then(|| Table::now(accel));
    let parts = table.iter();
    let parts = parts.flat_map(|table| [("--kernel", &table.kernels), ("--qemu", &table.qemus)]);
    for (title, rows) in parts {
        for (number, Row { name, state }) in rows.iter().enumerate() {
            let title = if number == 0 { title } else { "" };
            line(title, &format!("{name:<10} {state}"))?;
        }
    }
    for (number, part) in table.iter().flat_map(|table| &table.pcie).enumerate() {
        let title = if number == 0 { "--translation" } else { "" };
        line(title, &format!("pcie: {:<20} {part}", part.name))?;
    }
    if let Some(file) = json {
        let facts = facts
            .into_iter()
            .map(|(name, text)| (name.into(), text.into()));
        file.json(&Report {
            facts: facts.collect(),
            table,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is but for kernels and QEMUs.
fn facts(archive: Option<&Archive>) -> Result<Vec<(&'static str, String)>> {
    let root = cache::root()?;
    cache::make_folder(&root)?;
    let acceleration = accel::decide(Choice::Auto).map_or_else(
        |reason| reason,
        |decision| format!("{} ({})", decision.accel.name(), decision.reason),
    );
    let packages = match host_packages::missing(&Group::ALL) {
        Ok(missing) if missing.is_empty() => "all there".to_owned(),
        Ok(missing) => format!(
            "would be installed for kernel and QEMU of ours:\n{}",
            host_packages::describe(&missing)
        ),
        Err(error) => format!("{error:#}"),
    };
    let mut facts = vec![
        ("processors", tool::jobs().to_string()),
        ("rustc", or_problem(tool::version_of(Path::new("rustc")))),
        ("acceleration", acceleration),
        (
            "cache",
            format!("{}, {}", root.display(), free_space(&root)),
        ),
    ];
    if let Some(archive) = archive {
        facts.push(("archive", archive.describe()));
        return Ok(facts);
    }
    let guest = Which::default()
        .built()
        .and_then(|kernel| guest::built(&kernel));
    let guest = guest.map(|guest| guest.initramfs.display().to_string());
    let daemon = virtiofsd::built().map(|path| path.display().to_string());
    facts.extend([
        (
            "mirrors",
            or_problem(fetch::mirrors().map(|sites| sites.join(" "))),
        ),
        ("packages", packages),
        ("guest", built(guest, "about 3 minutes")),
        (
            "virtiofsd",
            built(daemon, "about 90 seconds, for run --root,"),
        ),
    ]);
    if let Some(folder) = std::env::var_os("COAX_SOURCES") {
        facts.push(("COAX_SOURCES", folder.to_string_lossy().into_owned()));
    }
    Ok(facts)
}

/// `time` is what a build took on two processors.
fn built(state: Result<String>, time: &str) -> String {
    match state {
        Ok(version) => format!("built: {version}"),
        Err(error) => format!("would be built in {time} ({error:#})"),
    }
}

fn line(name: &str, text: &str) -> Result<(), OutputError> {
    outln!("{name:<14}{text}")
}

fn or_problem(result: Result<String>) -> String {
    result.unwrap_or_else(|error| format!("{error:#}"))
}

fn free_space(path: &Path) -> String {
    cache::free_mib(path).map_or_else(
        |error| format!("{error:#}"),
        |free| format!("{} GiB free", free >> 10),
    )
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax doctor`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum as _;

use coax_images::accel::{self, Choice};
use coax_images::host_packages::{self, Group};
use coax_images::kernel::{Named, Which};
use coax_images::{archive, cache, fetch, guest, qemu, tool, virtiofsd};
use coax_program::outln;
use coax_program::output::OutputError;

/// Prints a line for everything that matters; what is not there is no failure.
pub fn run() -> Result<ExitCode> {
    let root = cache::root()?;
    cache::make_folder(&root)?;
    line("processors", &tool::jobs().to_string())?;
    line("rustc", &or_problem(tool::version_of(Path::new("rustc"))))?;
    match accel::decide(Choice::Auto) {
        Ok(decision) => {
            line(
                "acceleration",
                &format!("{} ({})", decision.accel.name(), decision.reason),
            )?;
        }
        Err(reason) => line("acceleration", &reason)?,
    }
    line(
        "cache",
        &format!("{}, {}", root.display(), free_space(&root)),
    )?;
    if let Some(archive) = archive::here()? {
        // Nothing is fetched, installed or built.
        line("archive", &archive.describe())?;
        return Ok(ExitCode::SUCCESS);
    }
    line(
        "mirrors",
        &or_problem(fetch::mirrors().map(|sites| sites.join(" "))),
    )?;
    if let Some(folder) = std::env::var_os("COAX_SOURCES") {
        line("COAX_SOURCES", &folder.to_string_lossy())?;
    }
    match host_packages::missing(&Group::ALL) {
        Ok(missing) if missing.is_empty() => line("packages", "all there")?,
        Ok(missing) => {
            line("packages", "would be installed:")?;
            outln!("{}", host_packages::describe(&missing))?;
        }
        Err(error) => line("packages", &format!("{error:#}"))?,
    }
    built(
        "guest kernel",
        Which::default().built().map(|kernel| kernel.version),
        "about 9 minutes",
    )?;
    for kernel in Named::value_variants()
        .iter()
        .filter(|kernel| **kernel != Named::default())
    {
        if let Ok(built) = Which::from(*kernel).built() {
            line(&format!("  {kernel}"), &format!("built: {}", built.version))?;
        }
    }
    built(
        "QEMU",
        qemu::Which::default().built().map(|qemu| qemu.version),
        "about 6 minutes",
    )?;
    line("stock QEMU", &stock())?;
    let guest = Which::default()
        .built()
        .and_then(|kernel| guest::built(&kernel));
    let guest = guest.map(|guest| guest.initramfs.display().to_string());
    built("guest", guest, "about 3 minutes")?;
    let daemon = virtiofsd::built().map(|path| path.display().to_string());
    built("virtiofsd", daemon, "about 90 seconds, for run --root,")?;
    Ok(ExitCode::SUCCESS)
}

/// What `--qemu stock` would be.
fn stock() -> String {
    let which = qemu::Which {
        qemu: qemu::Choice::Stock,
    };
    match which.built() {
        Ok(found) => format!("{}, version {}", found.program.display(), found.version),
        Err(error) => format!("{error:#}"),
    }
}

/// `time` is what a build takes on two processors.
fn built(what: &str, state: Result<String>, time: &str) -> Result<(), OutputError> {
    match state {
        Ok(version) => line(what, &format!("built: {version}")),
        Err(error) => line(what, &format!("would be built in {time} ({error:#})")),
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

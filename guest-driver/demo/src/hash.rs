// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scenario `hash`: the device hashes a file's content in malloc'ed memory.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use coax::{Context, PageRange};

use crate::args::Input;
use crate::scenario::{device_pages, evict, judge, most, touch, DevicePages, Findings, Progress};

/// Runs it.
pub fn run(context: &Context, progress: &mut Progress, input: &Input) -> Result<Findings> {
    let expected = known_or_found(input, progress)?;
    let data = read(&input.file)?;
    progress.done("file read into malloc'ed memory");
    let ranges = [PageRange::of(&data)];

    let before = device_pages(context, &ranges)?;
    let digest = context.sha256(&data)?;
    progress.done("device hashed the memory");
    let after = device_pages(context, &ranges)?;
    touch(&data);
    progress.done("CPU read every page");
    let after_cpu = device_pages(context, &ranges)?;
    evict(context, &ranges)?;
    progress.done("pages evicted");
    let after_evict = device_pages(context, &ranges)?;

    let pages = ranges[0].pages();
    let device_pages = DevicePages {
        before,
        after,
        after_cpu,
        after_evict,
    };
    Ok(Findings {
        pages,
        device_pages,
        expected,
        actual: hexadecimal(&digest),
        complaints: judge(&context.info()?, most(pages), device_pages),
    })
}

/// The file's content in malloc'ed memory.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("Cannot read {}", file.display()))
}

/// SHA-256 of the file, as the user or busybox says.
pub fn known_or_found(input: &Input, progress: &mut Progress) -> Result<String> {
    if let Some(known) = &input.sha256 {
        return Ok(known.clone());
    }
    let found = sha256sum(&input.file)?;
    progress.done("busybox hashed the file");
    Ok(found)
}

/// SHA-256 of a file by busybox, which shares no code with the device.
pub fn sha256sum(file: &Path) -> Result<String> {
    let opened = File::open(file).with_context(|| format!("Cannot read {}", file.display()))?;
    // By its name it could be taken for an option, or come back escaped.
    let output = Command::new("busybox")
        .arg("sha256sum")
        .stdin(opened)
        .output()
        .context("Cannot run busybox sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split_whitespace().next().unwrap_or_default();
    ensure!(
        output.status.success() && digest.len() == 64,
        "busybox sha256sum failed for {}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(digest.to_owned())
}

/// A digest in the form that `sha256sum` prints.
pub fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_print_like_sha256sum() {
        assert_eq!(hexadecimal(&[0x00, 0x0f, 0xa5]), "000fa5");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The slot that a device is in, as somebody with a hand on it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// All slots that devices can be taken out of.
const SLOTS: &str = "/sys/bus/pci/slots";
/// The driver's folder in sysfs.
const DRIVER: &str = "/sys/bus/virtio/drivers/coax";

/// Switches the slot of this device off, without the 5 s that `device_del` gives people to change their mind:
/// the driver lets go of the device, and QEMU takes it out.
pub fn power_off(device: &str) -> Result<()> {
    let path = slot_of(device)?.join("power");
    fs::write(&path, "0").with_context(|| format!("Writing {}", path.display()))
}

fn slot_of(device: &str) -> Result<PathBuf> {
    let link = Path::new(DRIVER).join(device);
    let path = fs::canonicalize(&link).with_context(|| link.display().to_string())?;
    let function = path.parent().and_then(Path::file_name);
    let function = function
        .context("The device has no function")?
        .to_string_lossy();
    let slots = fs::read_dir(SLOTS).context(SLOTS)?;
    for slot in slots {
        let slot = slot.context(SLOTS)?.path();
        let address = fs::read_to_string(slot.join("address")).unwrap_or_default();
        // `0000:01:00` is the slot of `0000:01:00.0`.
        let inside = function
            .strip_prefix(address.trim())
            .filter(|_| !address.is_empty());
        if inside.is_some_and(|rest| rest.starts_with('.')) {
            return Ok(slot);
        }
    }
    anyhow::bail!("{SLOTS} has no slot of {function}")
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loading, unloading and unbinding the driver.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

use super::device::Device;
use super::wait;
use crate::case::Mode;

/// Where the guest image keeps the module.
const MODULE_PATH: &str = "/lib/modules/coax.ko";
/// Whether the module lives, in sysfs.
const STATE_PATH: &str = "/sys/module/coax/initstate";
/// The driver's folder in sysfs.
const DRIVER_DIR: &str = "/sys/bus/virtio/drivers/coax";
/// The first device's file.
const DEVICE_PATH: &str = "/dev/coax0";

/// Unloads the driver without waiting for its users.
pub fn unload() -> Result<(), Errno> {
    delete_module(c"coax", DeleteModuleFlags::O_NONBLOCK)
}

/// Whether the driver is being unloaded, or is.
pub fn is_going() -> bool {
    match std::fs::read_to_string(STATE_PATH) {
        Ok(state) => state.trim() == "going",
        Err(_) => true,
    }
}

/// The mode in which the driver is loaded.
pub fn mode() -> Result<Mode> {
    let mode = Device::open()?.info()?.mode;
    Mode::ALL
        .into_iter()
        .find(|known| known.parameter() == mode)
        .with_context(|| format!("Mode {mode}"))
}

/// Loads the driver, which has tried its devices when this returns.
pub fn insert(mode: Mode) -> Result<()> {
    insert_with(mode, "")
}

/// The same with more parameters.
pub fn insert_with(mode: Mode, more: &str) -> Result<()> {
    let file = File::open(MODULE_PATH).context(MODULE_PATH)?;
    let parameters = std::ffi::CString::new(format!("mode={} {more}", mode.parameter()))?;
    finit_module(&file, &parameters, ModuleInitFlags::empty()).context("finit_module")
}

/// Loads the driver and waits for its device.
pub fn load(mode: Mode) -> Result<()> {
    load_with(mode, "")
}

/// The same with more parameters.
pub fn load_with(mode: Mode, more: &str) -> Result<()> {
    insert_with(mode, more)?;
    wait::until("Device after loading the driver", || {
        Ok(Path::new(DEVICE_PATH).exists())
    })
}

/// Name of the device that the driver is bound to.
pub fn bound_device() -> Result<String> {
    let entries = std::fs::read_dir(DRIVER_DIR).context(DRIVER_DIR)?;
    for entry in entries {
        let name = entry
            .context(DRIVER_DIR)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("virtio") {
            return Ok(name);
        }
    }
    anyhow::bail!("{DRIVER_DIR} has no device");
}

/// PCI functions of the devices that the driver is bound to, in the order of their addresses.
pub fn functions() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(DRIVER_DIR).context(DRIVER_DIR)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    let devices = names.iter().filter(|name| name.starts_with("virtio"));
    let mut functions = devices
        .map(|name| function_of(name))
        .collect::<Result<Vec<_>>>()?;
    functions.sort();
    Ok(functions)
}

/// Takes the device from the driver.
pub fn unbind(device: &str) -> Result<()> {
    std::fs::write(PathBuf::from(DRIVER_DIR).join("unbind"), device).context("unbind")?;
    ensure!(
        !Path::new(DEVICE_PATH).exists(),
        "{DEVICE_PATH} is there after unbind"
    );
    Ok(())
}

/// Removes the PCI function that the device is, as for its unplugging.
pub fn remove_function(device: &str) -> Result<()> {
    let function = function_of(device)?;
    std::fs::write(function.join("remove"), "1").context("remove")?;
    ensure!(
        !function.exists(),
        "{function:?} is there after its removal"
    );
    Ok(())
}

/// Has the kernel reset the PCI function of a bound device, by whatever way it finds.
pub fn reset_function(device: &str) -> Result<()> {
    std::fs::write(function_of(device)?.join("reset"), "1").context("reset")
}

/// Folder of a bound device's PCI function.
pub fn function_of(device: &str) -> Result<PathBuf> {
    let link = PathBuf::from(DRIVER_DIR).join(device);
    let device = link.canonicalize().with_context(|| format!("{link:?}"))?;
    let function = device.parent().context("The device has no parent")?;
    Ok(function.to_path_buf())
}

/// Whether the device's file is there.
pub fn has_device() -> bool {
    Path::new(DEVICE_PATH).exists()
}

/// Looks for PCI functions that were removed, and waits for the device's file.
pub fn find_functions() -> Result<()> {
    std::fs::write("/sys/bus/pci/rescan", "1").context("rescan")?;
    wait::until("Device after the rescan", || {
        Ok(Path::new(DEVICE_PATH).exists())
    })
}

/// Offers the device to the driver, once; what that says.
pub fn try_bind(device: &str) -> std::io::Result<()> {
    std::fs::write(PathBuf::from(DRIVER_DIR).join("bind"), device)
}

/// Gives the device to the driver and waits for its file; device memory that files just closed
/// still hold may keep the driver from it for a moment.
pub fn bind(device: &str) -> Result<()> {
    wait::until("The driver taking the device", || match try_bind(device) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        result => result.map(|()| true).context("bind"),
    })?;
    wait::until("Device after bind", || Ok(Path::new(DEVICE_PATH).exists()))
}

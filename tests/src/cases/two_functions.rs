// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is two PCI functions of one slot, as an unpatched QEMU has it: one is the device, the other its
//! memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::cases::lifecycle;
use crate::guest::device::Device;
use crate::guest::memory::PAGE;
use crate::guest::module;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "two_functions",
    cases: &[
        case!(
            each_device_has_the_memory_of_its_own_slot,
            "two devices, and page frames that are those of the BAR beside each"
        )
        .in_vm(Vm::FourFunctions)
        .modes(&[Mode::Coherent, Mode::Numa]),
        case!(both_devices_work, "pages go to each device and back").in_vm(Vm::FourFunctions),
        case!(
            a_device_without_its_memory_is_left_alone,
            "the driver is bound while the other function is not there, and when it is again"
        )
        .in_vm(Vm::TwoFunctions),
        case!(
            the_driver_unloads_and_loads_again,
            "several times, without a word of the front end to the back end in between"
        )
        .in_vm(Vm::TwoFunctions),
        case!(
            removing_the_device_alone_brings_pages_back,
            "pages on the device, files open; then found again beside its memory"
        )
        .in_vm(Vm::TwoFunctions),
        case!(
            an_unplugged_slot_gives_its_pages_back,
            "device_del under a command, pages on the device; both functions go, and others come"
        )
        .in_vm(Vm::TwoFunctions),
    ],
};

/// The BAR that is the device memory, in sysfs' table of them.
const MEMORY_BAR: usize = 2;

/// The function beside that of a device: the one with its memory.
fn memory_of(function: &Path) -> Result<PathBuf> {
    let name = function.file_name().context("A function has a name")?;
    let name = name.to_string_lossy();
    let (slot, _) = name.split_once('.').context("A function has a slot")?;
    Ok(function.with_file_name(format!("{slot}.0")))
}

/// The first address of a function's memory.
fn address_of(memory: &Path) -> Result<u64> {
    let table = fs::read_to_string(memory.join("resource"))?;
    let line = table.lines().nth(MEMORY_BAR).context("No such BAR")?;
    let start = line.split(' ').next().unwrap_or_default();
    let digits = start.strip_prefix("0x").context("An address")?;
    Ok(u64::from_str_radix(digits, 16)?)
}

fn each_device_has_the_memory_of_its_own_slot() -> CaseResult {
    let functions = module::functions()?;
    ensure!(functions.len() == 2, "Bound: {functions:?}");
    for (number, function) in (0..).zip(&functions) {
        let at = address_of(&memory_of(function)?)?;
        let info = Device::open_number(number)?.info()?;
        let frames = info.first_pfn * PAGE as u64;
        ensure!(
            frames == at,
            "Device {number}, {function:?}: pages at {frames:#x}, memory at {at:#x}"
        );
    }
    Ok(())
}

fn both_devices_work() -> CaseResult {
    (0..2).try_for_each(|number| lifecycle::device_works(&Device::open_number(number)?))
}

fn a_device_without_its_memory_is_left_alone() -> CaseResult {
    covers!("coax.drv.1");
    let name = module::bound_device()?;
    let memory = memory_of(&module::function_of(&name)?)?;
    module::unbind(&name)?;
    fs::write(memory.join("remove"), "1").context("Removing the memory")?;
    let refused = module::try_bind(&name)
        .err()
        .and_then(|error| error.raw_os_error());
    ensure!(
        refused == Some(libc::ENODEV),
        "Bound without memory: {refused:?}"
    );
    fs::write("/sys/bus/pci/rescan", "1").context("Looking for functions")?;
    ensure!(memory.exists(), "{memory:?} was not found again");
    module::bind(&name)?;
    lifecycle::works()
}

fn the_driver_unloads_and_loads_again() -> CaseResult {
    covers!("coax.drv.7");
    lifecycle::an_idle_driver_unloads_and_loads_again()
}

fn removing_the_device_alone_brings_pages_back() -> CaseResult {
    lifecycle::removing_the_pci_function_brings_pages_back()
}

fn an_unplugged_slot_gives_its_pages_back() -> CaseResult {
    covers!("coax.drv.2");
    let memory = memory_of(&module::function_of(&module::bound_device()?)?)?;
    lifecycle::an_unplugged_device_gives_its_pages_back()?;
    ensure!(memory.exists(), "{memory:?} is not there after plugging in");
    Ok(())
}

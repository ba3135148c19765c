// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver unloaded and the device unbound, idle and under use.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use coax::{Command, Error};
use coax_program::outln;
use coax_specification::covers;
use nix::errno::Errno;
use nix::unistd::pipe;

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject, Vm};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::module;
use crate::guest::pattern::{self, same};
use crate::guest::wait;
use crate::request::Request;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "lifecycle",
    cases: &[
        case!(
            an_idle_driver_unloads_and_loads_again,
            "unload and load, several times"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            unloading_with_an_open_file_is_refused,
            "the module is in use"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            unloading_under_a_command_is_refused,
            "the module is in use, the device at work"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            unloading_brings_pages_back,
            "pages on the device, no file open"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            unloading_waits_for_pinned_pages,
            "pages on the device that a pipe holds"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            a_closed_context_leaves_nothing_to_unload,
            "close and unload at once"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            what_the_device_writes_to_lazily_freed_pages_is_kept,
            "MADV_FREE, a device write to memory of a device not used before, and reclaim"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            unbinding_under_commands_gives_enodev,
            "the device goes away under use"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            unbinding_brings_pages_back,
            "pages on the device, files open"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            removing_the_pci_function_brings_pages_back,
            "pages on the device, files open, a command under way; then found again"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            a_reset_of_the_pci_function_brings_pages_back,
            "the function's `reset` in sysfs; pages on the device, files open, a command under way"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            an_unplugged_device_gives_its_pages_back,
            "device_del under a command, pages on the device; device_add"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            a_device_stopped_with_its_guest_is_not_given_up,
            "for longer than an answer is waited for, pages under way"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            an_open_file_outlives_the_device,
            "calls and close after the device went"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            an_old_file_stays_without_device_after_bind,
            "a device bound again beside a file of before"
        )
        .in_vm(Vm::Lifecycle),
    ],
};

const LEN: usize = 512 * PAGE;
/// What no two moves take that were not stopped.
const STOPPED: Duration = Duration::from_secs(10);

/// Demands that the device works.
pub(super) fn works() -> CaseResult {
    device_works(&Device::open()?)
}

/// Demands that this one works.
pub(super) fn device_works(device: &Device) -> CaseResult {
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(131, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

pub(super) fn an_idle_driver_unloads_and_loads_again() -> CaseResult {
    let mode = module::mode()?;
    for round in 0..5 {
        module::unload().with_context(|| format!("Unloading, round {round}"))?;
        module::load(mode)?;
        works().with_context(|| format!("After loading, round {round}"))?;
    }
    Ok(())
}

/// Demands that the driver cannot be unloaded: `EAGAIN` is what `delete_module` says of a
/// module in use (`kernel/module/main.c`).
fn unloading_is_refused() -> Result<()> {
    match module::unload() {
        Err(Errno::EAGAIN) => Ok(()),
        other => bail!("Unloading under use: {other:?}"),
    }
}

fn unloading_with_an_open_file_is_refused() -> CaseResult {
    let device = Device::open()?;
    unloading_is_refused()?;
    device.run(Command::nop())?;
    works()
}

fn unloading_under_a_command_is_refused() -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    unloading_is_refused()?;
    ring.store(list::NEXT, 0);
    device.finish(walk)?;
    works()
}

fn unloading_brings_pages_back() -> CaseResult {
    let mode = module::mode()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(132, LEN);
    memory.write(0, &content);
    let device = Device::open()?;
    device.take(&memory)?;
    drop(device);
    module::unload().context("Unloading with pages on the device")?;
    same("memory without the driver", &memory.to_vec(), &content)?;
    module::load(mode)?;
    let device = Device::open()?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

fn a_closed_context_leaves_nothing_to_unload() -> CaseResult {
    let mode = module::mode()?;
    for _ in 0..5 {
        let device = Device::open()?;
        let ring = Mapping::anonymous(LEN)?;
        list::start_endless(&device, &ring)?;
        drop(device);
        module::unload().context("Unloading after the close")?;
        ring.fill(0..LEN, 1);
        module::load(mode)?;
    }
    works()
}

fn what_the_device_writes_to_lazily_freed_pages_is_kept() -> CaseResult {
    const LEN: usize = 512 * PAGE;
    const PATTERN: u64 = 0x2222_3333_4444_5555;
    let mode = module::mode()?;
    // A page of device memory keeps for ever what the pages that were there before left in its flags.
    module::unload().context("delete_module")?;
    module::load(mode)?;
    let device = Device::open_moving()?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 0x11);
    memory
        .advise(0..LEN, libc::MADV_FREE)
        .context("MADV_FREE")?;
    device.fill(&memory, 0..LEN, PATTERN)?;
    if mode != Mode::Numa {
        device.evict(range_of(&memory))?;
    }
    memory
        .advise(0..LEN, libc::MADV_PAGEOUT)
        .context("MADV_PAGEOUT")?;
    same(
        "memory",
        &memory.to_vec(),
        &PATTERN.to_le_bytes().repeat(LEN / 8),
    )
}

fn unbinding_under_commands_gives_enodev() -> CaseResult {
    covers!("coax.drv.26");
    let name = module::bound_device()?;
    let mut running = Vec::new();
    for _ in 0..4 {
        let device = Device::open()?;
        let ring = Mapping::anonymous(16 * PAGE)?;
        list::lay(&ring, ring.address());
        let walk = device.start(list::walk(&ring, u64::MAX))?;
        running.push((device, ring, walk));
    }
    module::unbind(&name)?;
    for (device, ring, walk) in &running {
        refused("a walk without end", device.finish(*walk), libc::ENODEV)?;
        ensure!(ring.load(list::VALUE) == 1, "The ring changed");
    }
    drop(running);
    module::bind(&name)?;
    works()
}

fn unbinding_brings_pages_back() -> CaseResult {
    covers!("coax.drv.24", "coax.drv.26");
    let name = module::bound_device()?;
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(133, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    module::unbind(&name)?;
    same("memory without the device", &memory.to_vec(), &content)?;
    drop(device);
    module::bind(&name)?;
    let again = Device::open()?;
    ensure!(
        again.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

/// Takes the device away while pages are in its memory and a command is under way, brings one back, and
/// demands that nobody loses anything and that the new one works.
fn pages_come_back(
    away: impl FnOnce() -> Result<()>,
    back: impl FnOnce() -> Result<()>,
) -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(135, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    away()?;
    refused("a walk without end", device.finish(walk), libc::ENODEV)?;
    same("memory without the device", &memory.to_vec(), &content)?;
    drop(device);
    back()?;
    let again = Device::open()?;
    ensure!(
        again.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    drop(again);
    works()
}

pub(super) fn removing_the_pci_function_brings_pages_back() -> CaseResult {
    let name = module::bound_device()?;
    pages_come_back(|| module::remove_function(&name), module::find_functions)
}

fn a_reset_of_the_pci_function_brings_pages_back() -> CaseResult {
    let name = module::bound_device()?;
    pages_come_back(
        || module::reset_function(&name),
        || wait::until("The device being back", || Ok(module::has_device())),
    )
}

pub(super) fn an_unplugged_device_gives_its_pages_back() -> CaseResult {
    // Below an expander bridge the slot is pciehp's, whose `pciehp_unconfigure_device()` takes `reset_lock`
    // with `pci_rescan_remove_lock` held, and `pciehp_ist()` them the other way round, whatever is unplugged.
    if module::mode()? == Mode::Numa && fs::exists("/proc/lockdep")? {
        return Err(Skip("pciehp has lockdep report a cycle of its own locks".into()).into());
    }
    pages_come_back(
        || {
            outln!("{}", Request::UnplugDevice)?;
            wait::until("The device being gone", || Ok(!module::has_device()))
        },
        || {
            outln!("{}", Request::PlugDevice)?;
            wait::until("The device plugged in", || Ok(module::has_device()))
        },
    )
}

fn a_device_stopped_with_its_guest_is_not_given_up() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(137, LEN);
    memory.write(0, &content);
    outln!("{}", Request::Stop)?;
    // Back and forth until the clock has jumped: every call waits for the device.
    let mut last = Instant::now();
    wait::until("The stop", || {
        device.take(&memory)?;
        device.evict(range_of(&memory)).context("Evict")?;
        let now = Instant::now();
        Ok(now - std::mem::replace(&mut last, now) > STOPPED)
    })?;
    same("memory", &memory.to_vec(), &content)?;
    drop(device);
    works()
}

fn an_open_file_outlives_the_device() -> CaseResult {
    let name = module::bound_device()?;
    let device = Device::open()?;
    let done = device.start(Command::nop())?;
    let memory = Mapping::anonymous(LEN)?;
    module::unbind(&name)?;
    let range = range_of(&memory);
    refused("submit", device.start(Command::nop()), libc::ENODEV)?;
    refused("wait", device.finish(done), libc::ENODEV)?;
    refused("prefetch", device.prefetch(range), libc::ENODEV)?;
    refused("residency", device.residency(range), libc::ENODEV)?;
    refused("info", device.info(), libc::ENODEV)?;
    refused("stats", device.stats(), libc::ENODEV)?;
    refused("reset", device.reset(), libc::ENODEV)?;
    match Device::open() {
        Err(Error::Open { .. }) => {}
        other => bail!("Open without a device: {other:?}"),
    }
    drop(device);
    module::bind(&name)?;
    works()
}

fn unloading_waits_for_pinned_pages() -> CaseResult {
    let mode = module::mode()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(134, LEN);
    memory.write(0, &content);
    let device = Device::open()?;
    device.take(&memory)?;
    let (reader, writer) = pipe()?;
    let pinned = 4 * PAGE;
    memory.pin_in_pipe(0..pinned, writer.as_fd())?;
    drop(device);
    std::thread::scope(|scope| -> Result<()> {
        let unloading = scope.spawn(module::unload);
        wait::until("Unloading having begun", || Ok(module::is_going()))?;
        let mut seen = vec![0; pinned];
        File::from(reader).read_exact(&mut seen)?;
        same("what comes out of the pipe", &seen, &content[..pinned])?;
        let unloaded = unloading.join();
        unloaded
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("Unloading")
    })?;
    same("memory", &memory.to_vec(), &content)?;
    module::load(mode)?;
    works()
}

fn an_old_file_stays_without_device_after_bind() -> CaseResult {
    let name = module::bound_device()?;
    let old = Device::open()?;
    module::unbind(&name)?;
    module::bind(&name)?;
    works()?;
    refused(
        "submit to the old file",
        old.start(Command::nop()),
        libc::ENODEV,
    )?;
    drop(old);
    works()
}

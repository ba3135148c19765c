// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device memory as a memory node: what the node is, and who gets memory of it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{ensure, Context as _, Result};
use coax::{PageRange, Policy};
use coax_specification::covers;
use nix::sys::signal::Signal;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::module;
use crate::guest::node::{self, Placement, MOVE, SYSTEM};
use crate::guest::pagemap::{self, Place};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};
use crate::guest::raw;
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "numa",
    cases: &[
        case!(the_node_is_that_of_the_device, "sysfs, iomem, zones").modes(NUMA),
        case!(
            the_node_is_for_movable_pages_only,
            "online_kernel is refused"
        )
        .modes(NUMA),
        case!(move_pages_moves_there_and_back, "move_pages(2), numa_maps").modes(NUMA),
        case!(
            mbind_places_and_moves,
            "mbind(2) before and after the first touch"
        )
        .modes(NUMA),
        case!(
            set_mempolicy_places,
            "set_mempolicy(2), inherited by a child"
        )
        .modes(NUMA),
        case!(migrate_pages_moves_a_process, "migrate_pages(2) of a child").modes(NUMA),
        case!(
            balancing_brings_pages_to_the_cpu,
            "numa_balancing on, a CPU that reads"
        )
        .modes(NUMA),
        case!(
            the_device_works_on_its_node,
            "digest, fill, atomic operation, residency"
        )
        .modes(NUMA),
        case!(a_device_fault_moves_nothing, "pages used where they are").modes(NUMA),
        case!(
            the_driver_leaves_moving_to_the_system,
            "the errors of its calls"
        )
        .modes(NUMA),
        case!(
            ordinary_memory_stays_off_the_node,
            "a quarter of the memory, no policy"
        )
        .modes(NUMA),
        case!(
            memory_falls_back_to_the_node_unless_bound,
            "system memory full"
        )
        .modes(NUMA),
        case!(a_cpuset_keeps_off_the_node, "cpuset.mems without the node").modes(NUMA),
        case!(a_full_node_takes_what_fits, "more memory than the node has")
            .modes(NUMA)
            .in_vm(Vm::SmallDevice),
        case!(
            a_device_without_a_node_is_refused,
            "mode=2 where firmware knows no node"
        )
        .modes(&[Mode::Private])
        .in_vm(Vm::Lifecycle),
    ],
};

const NUMA: &[Mode] = &[Mode::Numa];
const LEN: usize = 256 * PAGE;

/// Memory that this process has filled, and with what.
fn filled(seed: u64, len: usize) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(len)?;
    let content = pattern::bytes(seed, len);
    memory.write(0, &content);
    Ok((memory, content))
}

fn the_node_is_that_of_the_device() -> CaseResult {
    covers!("coax.dev.1");
    let device = Device::open()?;
    let node = node::of(&device)?;
    let info = device.info()?;
    let link = format!("/sys/bus/virtio/devices/{}", module::bound_device()?);
    let parent = fs::canonicalize(&link).context(link)?;
    let parent = parent.parent().context("A virtio device has a parent")?;
    let of_pci = fs::read_to_string(parent.join("numa_node")).context("numa_node")?;
    // On the first host bridge (an unpatched QEMU's device) firmware gives the function no node: the driver takes that
    // of which it says that it is an initiator.
    let due = if parent.starts_with("/sys/devices/pci0000:00") {
        "-1".to_owned()
    } else {
        node.to_string()
    };
    ensure!(
        of_pci.trim() == due,
        "The PCI function is in node {of_pci}, not {due}"
    );
    let cpus = fs::read_to_string(node::folder(node).join("cpulist")).context("cpulist")?;
    ensure!(cpus.trim().is_empty(), "Node {node} has CPUs {cpus}");
    ensure!(node::has_memory(node)?, "Node {node} has no memory");
    let total = node::meminfo(node, "MemTotal")?;
    ensure!(
        total == info.device_pages,
        "{total} pages, the device has {}",
        info.device_pages
    );
    let zones = fs::read_to_string("/proc/zoneinfo").context("/proc/zoneinfo")?;
    let managed = managed_pages(&zones, node);
    ensure!(
        managed == [("Movable".to_owned(), total)],
        "Zones of node {node}: {managed:?}"
    );
    let iomem = fs::read_to_string("/proc/iomem").context("/proc/iomem")?;
    let first = format!("{:08x}-", info.first_pfn * PAGE as u64);
    let line = iomem
        .lines()
        .find(|line| line.ends_with("System RAM (coax)"));
    ensure!(
        line.is_some_and(|line| line.trim().starts_with(&first)),
        "{iomem}"
    );
    Ok(())
}

/// Zones of the node with memory, and how much.
fn managed_pages(zones: &str, node: u32) -> Vec<(String, u64)> {
    let (mut zone, mut found) = (None, Vec::new());
    for line in zones.lines() {
        if let Some(of) = line.strip_prefix("Node ") {
            let (number, name) = of.split_once(", zone").unwrap_or((of, ""));
            zone = (number == node.to_string()).then(|| name.trim().to_owned());
        } else if let (Some(zone), Some(count)) = (&zone, line.trim().strip_prefix("managed")) {
            let count = count.trim().parse().unwrap_or(0);
            if count > 0 {
                found.push((zone.clone(), count));
            }
        }
    }
    found
}

fn the_node_is_for_movable_pages_only() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    let block = node::blocks(node)?.pop().context("A block")?.join("state");
    fs::write(&block, "offline").context("offline")?;
    for kind in ["online_kernel", "online"] {
        let result = fs::write(&block, kind);
        if kind == "online_kernel" {
            let error = result.err().context("online_kernel was not refused")?;
            ensure!(
                error.kind() == ErrorKind::PermissionDenied,
                "online_kernel: {error}"
            );
        }
        let zones = fs::read_to_string("/proc/zoneinfo").context("/proc/zoneinfo")?;
        let kinds = managed_pages(&zones, node);
        ensure!(
            kinds.iter().all(|(zone, _)| zone == "Movable"),
            "{kind}: {kinds:?}"
        );
    }
    // Beside movable memory the kernel may have chosen that by itself.
    if fs::read_to_string(&block).context("state")?.trim() == "offline" {
        fs::write(&block, "online_movable").context("online_movable")?;
    }
    let (all, have) = (
        Device::open()?.info()?.device_pages,
        node::meminfo(node, "MemTotal")?,
    );
    ensure!(have == all, "{have} of {all} pages are online");
    Ok(())
}

fn move_pages_moves_there_and_back() -> CaseResult {
    let device = Device::open()?;
    let node = node::of(&device)?;
    let (memory, content) = filled(201, LEN)?;
    for to in [node, SYSTEM, node] {
        node::move_to(&memory, to)?;
        let maps = node::numa_maps(&memory)?;
        let count = format!(" N{to}={} ", memory.pages());
        ensure!(maps.contains(&count), "No{count}in {maps}");
        same("memory", &memory.to_vec(), &content)?;
    }
    // A single page.
    node::move_pages(0, &memory, PAGE..2 * PAGE, SYSTEM, MOVE)?;
    let places = node::places(&memory, 0..3 * PAGE)?;
    let node = i32::try_from(node)?;
    ensure!(places == [node, 0, node], "Pages on {places:?}");
    same("memory", &memory.to_vec(), &content)
}

fn mbind_places_and_moves() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    let fresh = Mapping::small_pages(LEN)?;
    node::bind(&fresh, Placement::Bind, node, 0)?;
    fresh.fill(0..LEN, 3);
    let there = node::count(&fresh, node)?;
    ensure!(
        there == fresh.pages(),
        "{there} fresh pages are on the node"
    );
    ensure!(
        node::numa_maps(&fresh)?.contains("bind:"),
        "{}",
        node::numa_maps(&fresh)?
    );

    let (old, content) = filled(202, LEN)?;
    node::bind(&old, Placement::Bind, node, 0)?;
    ensure!(
        node::count(&old, node)? == 0,
        "mbind moved what it was not to move"
    );
    node::bind(&old, Placement::Bind, node, MOVE)?;
    let there = node::count(&old, node)?;
    ensure!(there == old.pages(), "{there} old pages are on the node");
    same("memory", &old.to_vec(), &content)
}

fn set_mempolicy_places() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    node::set_policy(Placement::Bind, node)?;
    let there = |who: &str| -> CaseResult {
        let memory = Mapping::small_pages(LEN)?;
        memory.fill(0..LEN, 4);
        let there = node::count(&memory, node)?;
        ensure!(
            there == memory.pages(),
            "{there} pages of the {who} are on the node"
        );
        Ok(())
    };
    there("process")?;
    fork(|| there("child"))?.succeeds()?;
    node::set_policy(Placement::Default, 0)?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 5);
    ensure!(
        node::count(&memory, node)? == 0,
        "Memory is on the node without a policy"
    );
    Ok(())
}

fn migrate_pages_moves_a_process() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    let (memory, content) = filled(203, LEN)?;
    let (parent, side) = line()?;
    let child = fork(|| {
        let own = Mapping::small_pages(LEN)?;
        own.write(0, &content);
        side.announce(1)?;
        side.await_step(2)?;
        let there = node::count(&own, node)?;
        ensure!(there == own.pages(), "{there} pages of the child moved");
        same("memory of the child", &own.to_vec(), &content)?;
        side.announce(3)?;
        side.await_step(4)?;
        ensure!(
            node::count(&own, node)? == 0,
            "Pages of the child are left on the node"
        );
        same("memory of the child", &own.to_vec(), &content)
    })?;
    parent.await_step(1)?;
    node::migrate_process(child.pid(), SYSTEM, node).context("migrate_pages to the node")?;
    parent.announce(2)?;
    parent.await_step(3)?;
    node::migrate_process(child.pid(), node, SYSTEM).context("migrate_pages from the node")?;
    parent.announce(4)?;
    child.succeeds()?;
    same("memory", &memory.to_vec(), &content)
}

fn balancing_brings_pages_to_the_cpu() -> CaseResult {
    const SWITCH: &str = "/proc/sys/kernel/numa_balancing";
    let node = node::of(&Device::open()?)?;
    let (memory, content) = filled(204, LEN)?;
    let (bound, _) = filled(205, LEN)?;
    node::move_to(&memory, node)?;
    node::bind(&bound, Placement::Bind, node, MOVE)?;
    fs::write(SWITCH, "1").context(SWITCH)?;
    let came = wait::until(
        "Balancing bringing pages to the CPU that reads them",
        || {
            for page in 0..LEN / PAGE {
                memory.load(page * PAGE);
                bound.load(page * PAGE);
            }
            Ok(node::count(&memory, node)? < memory.pages() / 2)
        },
    );
    fs::write(SWITCH, "0").context(SWITCH)?;
    came?;
    let there = node::count(&bound, node)?;
    ensure!(
        there == bound.pages(),
        "Of bound pages {there} are still on the node"
    );
    same("memory", &memory.to_vec(), &content)
}

fn the_device_works_on_its_node() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(206, LEN)?;
    device.take(&memory)?;
    let info = device.info()?;
    let witnessed = pagemap::count(&info, &memory, Place::Device)?;
    ensure!(
        witnessed == memory.pages(),
        "pagemap has {witnessed} pages on the device"
    );
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.fill(&memory, 0..PAGE, 7)?;
    ensure!(memory.load(8) == 7, "The CPU reads {:#x}", memory.load(8));
    memory.store(8, 9);
    device.run(coax::Command::fetch_add(memory.at(8), 8, 1, 1, 0))?;
    ensure!(memory.load(8) == 10, "The CPU reads {:#x}", memory.load(8));
    ensure!(
        device.device_pages(&memory)? == memory.pages(),
        "Pages left"
    );
    let migrated = device.evict(range_of(&memory))?;
    ensure!(
        migrated.moved == memory.pages() && migrated.left == 0,
        "{migrated:?}"
    );
    ensure!(device.device_pages(&memory)? == 0, "Pages stayed");
    same("memory", &memory.to_vec()[PAGE..], &content[PAGE..])
}

fn a_device_fault_moves_nothing() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(207, LEN)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    ensure!(device.device_pages(&memory)? == 0, "Pages moved");
    let fresh = Mapping::anonymous(LEN)?;
    device.fill(&fresh, 0..LEN, 1)?;
    ensure!(
        device.device_pages(&fresh)? == 0,
        "Fresh pages are on the device"
    );
    Ok(())
}

fn the_driver_leaves_moving_to_the_system() -> CaseResult {
    use std::os::fd::AsFd;
    let device = Device::open()?;
    let (memory, _) = filled(208, LEN)?;
    let mut migrate = coax_abi::uapi::Migrate {
        addr: memory.address(),
        len: LEN as u64,
        direction: coax_abi::uapi::MIGRATE_TO_DEVICE,
        ..Default::default()
    };
    let asked = raw::ioctl(device.as_fd(), coax_abi::uapi::IOC_MIGRATE, &mut migrate);
    ensure!(
        asked == Err(nix::errno::Errno::EOPNOTSUPP),
        "IOC_MIGRATE: {asked:?}"
    );
    // The library has the system move them, under the same rules.
    device.set_policy(Policy::Never, None)?;
    refused("prefetch", device.prefetch(range_of(&memory)), libc::EPERM)?;
    device.set_policy(Policy::OnRequest, None)?;
    let misaligned = PageRange::new(memory.at(1), LEN as u64);
    refused("misaligned", device.prefetch(misaligned), libc::EINVAL)?;
    memory.unmap(PAGE..2 * PAGE)?;
    refused("a hole", device.prefetch(range_of(&memory)), libc::EFAULT)?;
    let there = device.device_pages(&memory)?;
    ensure!(
        there == memory.pages() - 1,
        "{there} pages beside the hole moved"
    );
    Ok(())
}

fn ordinary_memory_stays_off_the_node() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    let before = node::meminfo(node, "MemUsed")?;
    let memory = Mapping::small_pages(512 << 20)?;
    memory.fill(0..memory.len(), 1);
    ensure!(node::count(&memory, node)? == 0, "Pages are on the node");
    let after = node::meminfo(node, "MemUsed")?;
    ensure!(
        after <= before,
        "{before} pages of the node were in use, now {after}"
    );
    Ok(())
}

/// Most of the system's memory set aside for `hugetlbfs`, so that the rest is soon full; until this
/// value goes.
struct SetAside(PathBuf);

impl SetAside {
    /// Leaves `rest` bytes.
    fn all_but(rest: usize) -> Result<Self> {
        let free = node::meminfo(SYSTEM, "MemFree")? as usize * PAGE;
        let file = "hugepages/hugepages-2048kB/nr_hugepages";
        let aside = SetAside(node::folder(SYSTEM).join(file));
        let pages = free.saturating_sub(rest) / HUGE;
        fs::write(&aside.0, pages.to_string()).context(file)?;
        Ok(aside)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        // What is not given back ends with the VM.
        let _ = fs::write(&self.0, "0");
    }
}

/// Fills memory until it ends, or until `enough` says so.
fn hog(mut enough: impl FnMut() -> Result<bool>) -> Result<Vec<Mapping>> {
    let mut taken = Vec::new();
    while !enough()? {
        // Not in huge pages: for one of those, the kernel goes down to its last reserve on the first node before
        // it looks at the next, and then lacks memory for a page table.
        let memory = Mapping::small_pages(HUGE)?;
        memory.fill(0..HUGE, 1);
        taken.push(memory);
    }
    Ok(taken)
}

fn memory_falls_back_to_the_node_unless_bound() -> CaseResult {
    // What is ordinary goes to the other node while the kernel, which cannot, still has something here: by
    // default 0.1 % of memory, which may end first.
    const RESERVE: &str = "/proc/sys/vm/watermark_scale_factor";
    let usual = fs::read_to_string(RESERVE).context(RESERVE)?;
    fs::write(RESERVE, "200").context(RESERVE)?;
    let result = falls_back_unless_bound();
    fs::write(RESERVE, usual).context(RESERVE)?;
    result
}

fn falls_back_unless_bound() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    let used = || node::meminfo(node, "MemUsed");
    let before = used()?;
    let _aside = SetAside::all_but(256 << 20)?;
    // A few pages may come and go by themselves.
    let spilt = || Ok(used()? > before + 256);
    fork(|| {
        node::set_policy(Placement::Bind, SYSTEM)?;
        hog(spilt).map(drop)
    })?
    .dies_of(Signal::SIGKILL)
    .context("Memory bound to the system's node")?;
    fork(|| hog(spilt).map(drop))?
        .succeeds()
        .context("Memory of no policy")
}

fn a_cpuset_keeps_off_the_node() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    node::confined_to(SYSTEM, || {
        let device = Device::open()?;
        let (memory, _) = filled(209, LEN)?;
        let bound = node::bind(&memory, Placement::Bind, node, MOVE);
        ensure!(bound.is_err(), "mbind to a node outside of the cpuset");
        refused("prefetch", device.prefetch(range_of(&memory)), libc::EACCES)
    })
}

fn a_full_node_takes_what_fits() -> CaseResult {
    let device = Device::open()?;
    let node = node::of(&device)?;
    let room = device.info()?.free_pages;
    let len = usize::try_from(device.info()?.device_pages)? * PAGE + (16 << 20);
    let (memory, content) = filled(210, len)?;
    let migrated = device.prefetch(range_of(&memory))?;
    let there = node::count(&memory, node)?;
    ensure!(
        there == migrated.moved,
        "{there} pages are there after {migrated:?}"
    );
    ensure!(migrated.left == memory.pages() - there, "{migrated:?}");
    // The kernel keeps a reserve.
    ensure!(
        there >= room * 9 / 10 && there <= room,
        "{there} pages went where {room} were free"
    );
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.evict(range_of(&memory))?;
    ensure!(node::count(&memory, node)? == 0, "Pages stayed");
    same("memory", &memory.to_vec(), &content)
}

fn a_device_without_a_node_is_refused() -> CaseResult {
    module::unload()?;
    let loaded = module::insert(Mode::Numa);
    let there = fs::exists("/dev/coax0")?;
    module::unload().context("Unloading a driver without a device")?;
    module::load(Mode::Private)?;
    loaded?;
    ensure!(!there, "There is a device");
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device memory as a memory node, and a program that wants pages there which the device touches. What a
//! fault moves in every mode is in `migration`, `large` and `advise`.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{ensure, Context as _, Result};
use coax::Policy;
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::unistd::ftruncate;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::node::{self, Placement, SYSTEM};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "numa_faults",
    cases: &[
        case!(
            pages_move_on_fault_only_when_that_is_asked,
            "a context's first policy, and the driver's"
        )
        .modes(NUMA),
        case!(
            untouched_memory_is_made_on_the_node,
            "a device's fault on memory never touched"
        )
        .modes(NUMA),
        case!(
            memory_bound_elsewhere_stays,
            "mbind to the system's node, and back"
        )
        .modes(NUMA),
        case!(shared_memory_is_used_in_place, "memfd, MAP_SHARED").modes(NUMA),
        case!(
            a_child_keeps_its_own_copy,
            "fork, and pages that both have until the device writes"
        )
        .modes(NUMA),
        case!(
            faults_and_requests_at_once_keep_every_byte,
            "the device pulls while a thread pushes and another writes"
        )
        .modes(NUMA),
        case!(a_cpuset_forbids_it, "cpuset.mems without the node").modes(NUMA),
        case!(
            beside_a_full_node_pages_are_used_in_place,
            "a device that touches more than the node has"
        )
        .modes(NUMA)
        .in_vm(Vm::SmallDevice),
    ],
};

const NUMA: &[Mode] = &[Mode::Numa];
const PAGES: usize = 256;
const LEN: usize = PAGES * PAGE;
const PATTERN: u64 = 0x464c_5421_4e4f_4445;

fn filled(seed: u64, len: usize) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(len)?;
    let content = pattern::bytes(seed, len);
    memory.write(0, &content);
    Ok((memory, content))
}

/// Has the device read all of it, and demands what it has to find and how many pages are on the node then.
fn read_leaves(device: &Device, memory: &Mapping, content: &[u8], there: u64) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest"
    );
    let got = node::count(memory, node::of(device)?)?;
    ensure!(
        got == there,
        "{got} pages are on the node, expected {there}"
    );
    same("memory", &memory.to_vec(), content)
}

fn pages_move_on_fault_only_when_that_is_asked() -> CaseResult {
    let device = Device::open()?;
    let first = Policy::from_number(device.info()?.policy);
    ensure!(first == Some(Policy::OnRequest), "It begins with {first:?}");
    let (memory, content) = filled(401, LEN)?;
    read_leaves(&device, &memory, &content, 0)?;
    device.set_policy(Policy::OnFault, None)?;
    let before = device.stats()?.to_device_fault;
    let (memory, content) = filled(402, LEN)?;
    read_leaves(&device, &memory, &content, memory.pages())?;
    let moved = device.stats()?.to_device_fault - before;
    ensure!(moved >= memory.pages(), "The driver counts {moved} pages");
    device.set_policy(Policy::OnRequest, None)?;
    let (memory, content) = filled(403, LEN)?;
    read_leaves(&device, &memory, &content, 0)
}

fn untouched_memory_is_made_on_the_node() -> CaseResult {
    let device = Device::open_moving()?;
    let memory = Mapping::small_pages(LEN)?;
    device.fill(&memory, 0..LEN, PATTERN)?;
    let content = PATTERN.to_ne_bytes().repeat(LEN / 8);
    read_leaves(&device, &memory, &content, memory.pages())?;
    // Zeros, whatever the node's memory held before.
    let memory = Mapping::small_pages(LEN)?;
    device.fill(&memory, 8..16, PATTERN)?;
    let mut content = vec![0; LEN];
    content[8..16].copy_from_slice(&PATTERN.to_ne_bytes());
    same("memory", &memory.to_vec(), &content)
}

fn memory_bound_elsewhere_stays() -> CaseResult {
    let device = Device::open_moving()?;
    let (memory, content) = filled(404, LEN)?;
    node::bind(&memory, Placement::Bind, SYSTEM, 0)?;
    read_leaves(&device, &memory, &content, 0)?;
    let (memory, content) = filled(405, LEN)?;
    node::bind(&memory, Placement::Bind, node::of(&device)?, 0)?;
    read_leaves(&device, &memory, &content, memory.pages())
}

fn shared_memory_is_used_in_place() -> CaseResult {
    let device = Device::open_moving()?;
    let file = memfd_create(c"numa-faults", MFdFlags::empty()).context("memfd_create")?;
    ftruncate(&file, LEN as i64).context("ftruncate")?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, libc::PROT_READ | libc::PROT_WRITE)?;
    let content = pattern::bytes(406, LEN);
    memory.write(0, &content);
    read_leaves(&device, &memory, &content, 0)?;
    device.fill(&memory, 0..LEN, PATTERN)?;
    let content = PATTERN.to_ne_bytes().repeat(LEN / 8);
    read_leaves(&device, &memory, &content, 0)
}

fn a_child_keeps_its_own_copy() -> CaseResult {
    let device = Device::open_moving()?;
    let (memory, content) = filled(407, LEN)?;
    let (to_parent, to_child) = line()?;
    let child = fork(|| {
        to_parent.announce(1)?;
        to_parent.await_step(2)?;
        same("the child's memory", &memory.to_vec(), &content)
    })?;
    to_child.await_step(1)?;
    device.fill(&memory, 0..LEN, PATTERN)?;
    let new = PATTERN.to_ne_bytes().repeat(LEN / 8);
    read_leaves(&device, &memory, &new, memory.pages())?;
    to_child.announce(2)?;
    child.succeeds()
}

fn faults_and_requests_at_once_keep_every_byte() -> CaseResult {
    const ROUNDS: u64 = 6;
    let device = Device::open_moving()?;
    let memory = Mapping::anonymous(2 * LEN)?;
    memory.fill(0..memory.len(), 0);
    let before = device.stats()?.to_device_fault;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let pushing = scope.spawn(|| -> Result<u64> {
            let mut moved = 0;
            while !done.load(Ordering::Relaxed) {
                moved += device.evict(range_of(&memory))?.moved;
            }
            Ok(moved)
        });
        let work = || -> Result<()> {
            for round in 1..=ROUNDS {
                // A word of each page for the CPU, the rest for the device.
                for page in 0..memory.len() / PAGE {
                    memory.store(page * PAGE, round);
                }
                for page in (0..memory.len() / PAGE).step_by(16) {
                    device.fill(&memory, page * PAGE + 8..(page + 1) * PAGE, round)?;
                }
                for page in 0..memory.len() / PAGE {
                    let (cpu, other) = (memory.load(page * PAGE), memory.load(page * PAGE + 8));
                    let expected = if page % 16 == 0 { round } else { 0 };
                    ensure!(
                        (cpu, other) == (round, expected),
                        "Page {page} in round {round}: {cpu}, {other}"
                    );
                }
            }
            Ok(())
        };
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let pushed = pushing.join().expect("the thread that pushes");
        worked?;
        ensure!(pushed? > 0, "Nothing was pushed back");
        Ok(())
    })?;
    let moved = device.stats()?.to_device_fault - before;
    ensure!(moved > 0, "No fault moved a page");
    Ok(())
}

fn a_cpuset_forbids_it() -> CaseResult {
    node::confined_to(SYSTEM, || {
        let device = Device::open()?;
        let (memory, content) = filled(408, LEN)?;
        let asked = device.set_policy(Policy::OnFault, None);
        refused("policy on fault", asked, libc::EACCES)?;
        let asked = device.advise(range_of(&memory), Policy::OnFault);
        refused("advice on fault", asked, libc::EACCES)?;
        read_leaves(&device, &memory, &content, 0)
    })
}

fn beside_a_full_node_pages_are_used_in_place() -> CaseResult {
    let device = Device::open_moving()?;
    let node = node::of(&device)?;
    let info = device.info()?;
    let len = usize::try_from(info.device_pages)? * PAGE + (16 << 20);
    let memory = Mapping::anonymous(len)?;
    for round in 1..=2 {
        device.fill(&memory, 0..len, PATTERN + round)?;
        let there = node::count(&memory, node)?;
        // The kernel keeps a reserve.
        ensure!(
            there >= info.free_pages * 9 / 10 && there <= info.free_pages,
            "{there} pages went where {} were free",
            info.free_pages
        );
        for page in 0..len / PAGE {
            let word = memory.load(page * PAGE + 16);
            ensure!(word == PATTERN + round, "Page {page}: {word:#x}");
        }
    }
    Ok(())
}

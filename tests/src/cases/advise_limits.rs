// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Advice at its limits: more than there is room for, such as makes no sense, at random, and from
//! several threads.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use coax::{Advice, InForce, Policy};
use coax_abi::uapi::{
    Advise, PolicyAt, IOC_ADVISE, IOC_POLICY_AT, MAX_ADVISED, POLICY_CONTEXT, POLICY_NEVER,
    POLICY_ON_FAULT, POLICY_ON_REQUEST,
};
use nix::errno::Errno;

use super::advise::{both_see, filled, first, holds, pages, LEN, PAGES};
use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern;
use crate::guest::raw::{bad_ranges, ioctl};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "advise_limits",
    cases: &[
        case!(
            a_full_table_refuses_and_forgets_nothing,
            "MAX_ADVISED ranges and one more, and unmapping in the middle"
        ),
        case!(
            bad_advice_is_refused_and_changes_nothing,
            "ranges, policies and numbers that make no sense"
        ),
        case!(
            thousands_of_changes_agree_with_a_model,
            "advice at random, some of it bad, page by page"
        )
        .limit(LIMIT),
        case!(
            two_threads_advise_while_the_device_faults,
            "no byte is lost, and what is said last holds"
        )
        .limit(LIMIT),
    ],
};

/// These make thousands of calls, under TCG on a busy host.
const LIMIT: Duration = Duration::from_secs(180);

fn a_full_table_refuses_and_forgets_nothing() -> CaseResult {
    let device = Device::open()?;
    // Every second page, so that no two become one.
    let memory = Mapping::small_pages((2 * MAX_ADVISED + 2) * PAGE)?;
    for n in 0..MAX_ADVISED {
        let advised = device.advise(pages(&memory, 2 * n, 1), Policy::Never);
        advised.with_context(|| format!("Range {n}"))?;
    }
    let one_more = pages(&memory, 2 * MAX_ADVISED, 1);
    let refusal = device.advise(one_more, Policy::Never);
    refused("one range more", refusal, libc::ENOSPC)?;
    for n in 0..MAX_ADVISED {
        holds(&device, &memory, 2 * n, Policy::Never, true)?;
    }
    holds(&device, &memory, 2 * MAX_ADVISED, first(&device)?, false)?;
    // What needs no more ranges is taken, and what needs fewer makes room.
    device.advise(pages(&memory, 0, 1), Policy::OnRequest)?;
    device.advise(pages(&memory, 1, 3), Policy::Never)?;
    device.advise(one_more, Policy::Never)?;
    holds(&device, &memory, 2 * MAX_ADVISED, Policy::Never, true)?;
    // Full again; a hole in the middle of a range leaves both sides as they were.
    memory.unmap(2 * PAGE..3 * PAGE)?;
    holds(&device, &memory, 0, Policy::OnRequest, true)?;
    holds(&device, &memory, 1, Policy::Never, true)?;
    holds(&device, &memory, 3, Policy::Never, true)?;
    // All at once, over what is not mapped too.
    device.advise(range_of(&memory), Advice::default())?;
    for page in [0, 1, 2, 3, 4, 2 * MAX_ADVISED] {
        holds(&device, &memory, page, first(&device)?, false)?;
    }
    Ok(())
}

/// Makes the call as no library would and demands the errno.
fn advise_fails(device: &Device, what: &str, mut advise: Advise, errno: Errno) -> Result<()> {
    match ioctl(device.as_fd(), IOC_ADVISE, &mut advise) {
        Err(got) if got == errno => Ok(()),
        other => bail!("{what}: {other:?} instead of {errno}"),
    }
}

fn bad_advice_is_refused_and_changes_nothing() -> CaseResult {
    let device = Device::open()?;
    let first = first(&device)?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 1);
    let (at, len) = (memory.address(), LEN as u64);
    let good = Advise {
        addr: at,
        len,
        policy: POLICY_NEVER,
        fault_around: 0,
    };
    for (what, addr, len) in bad_ranges(&memory) {
        for policy in [POLICY_NEVER, POLICY_CONTEXT] {
            let advise = Advise {
                addr,
                len,
                policy,
                ..good
            };
            advise_fails(&device, what, advise, Errno::EINVAL)?;
        }
    }
    for policy in [POLICY_CONTEXT + 1, u32::MAX] {
        advise_fails(
            &device,
            "a policy",
            Advise { policy, ..good },
            Errno::EINVAL,
        )?;
    }
    for fault_around in [3, 513, 1024, u32::MAX] {
        let advise = Advise {
            fault_around,
            ..good
        };
        advise_fails(&device, "a fault-around", advise, Errno::EINVAL)?;
    }
    let refusal = device.advise(
        range_of(&memory),
        Advice {
            policy: None,
            fault_around: Some(0),
        },
    );
    refused("no page around", refusal, libc::EINVAL)?;
    let (hole, hole_end) = (PAGES / 2, PAGES / 2 + 1);
    memory.unmap(hole * PAGE..hole_end * PAGE)?;
    advise_fails(&device, "a hole", good, Errno::EFAULT)?;
    for page in [0, hole, PAGES - 1] {
        holds(&device, &memory, page, first, false)?;
    }
    for (addr, reserved) in [(at, 1), (0xffff_8880_0000_0000, 0), (u64::MAX, 0)] {
        let mut asked = PolicyAt {
            addr,
            reserved,
            ..PolicyAt::default()
        };
        let got = ioctl(device.as_fd(), IOC_POLICY_AT, &mut asked);
        ensure!(got == Err(Errno::EINVAL), "{asked:?}: {got:?}");
    }
    Ok(())
}

/// A fixed linear congruential sequence: repeatable, and any other would do.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

fn thousands_of_changes_agree_with_a_model() -> CaseResult {
    const ROUNDS: usize = 4000;
    const MANY: usize = 512;
    let device = Device::open()?;
    let context = device.policy_at(0)?;
    let memory = Mapping::small_pages(MANY * PAGE)?;
    let mut model = vec![(POLICY_CONTEXT, 0); MANY];
    let mut sequence = Sequence(312);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let from = sequence.below(MANY as u64) as usize;
        let count = (1 + sequence.below(24) as usize).min(MANY - from);
        let policy = [
            POLICY_ON_FAULT,
            POLICY_ON_REQUEST,
            POLICY_NEVER,
            POLICY_CONTEXT,
            4,
            77,
        ][sequence.below(6) as usize];
        let fault_around = [0, 0, 1, 8, 512, 513, 24][sequence.below(7) as usize];
        let skew = [0, 0, 0, 0, 8][sequence.below(5) as usize];
        let good = skew == 0
            && policy <= POLICY_CONTEXT
            && (fault_around == 0
                || fault_around as usize <= 512 && u32::is_power_of_two(fault_around));
        let mut advise = Advise {
            addr: memory.at(from * PAGE) + skew,
            len: (count * PAGE) as u64,
            policy,
            fault_around,
        };
        let got = ioctl(device.as_fd(), IOC_ADVISE, &mut advise);
        ensure!(got.is_ok() == good, "Round {round}: {advise:?}: {got:?}");
        if good {
            model[from..from + count].fill((policy, fault_around));
            taken += 1;
        } else {
            refused += 1;
        }
        let page = sequence.below(MANY as u64) as usize;
        let found = device.policy_at(memory.at(page * PAGE))?;
        agrees(&model, &memory, page, context, found).with_context(|| format!("Round {round}"))?;
    }
    ensure!(
        taken > 500 && refused > 500,
        "{taken} taken, {refused} refused"
    );
    for page in 0..MANY {
        let found = device.policy_at(memory.at(page * PAGE))?;
        agrees(&model, &memory, page, context, found)?;
    }
    Ok(())
}

/// Demands that what the driver says of a page is what the model says.
fn agrees(
    model: &[(u32, u32)],
    memory: &Mapping,
    page: usize,
    context: InForce,
    found: InForce,
) -> Result<()> {
    let (policy, around) = model[page];
    let expected = InForce {
        policy: Policy::from_number(policy).unwrap_or(context.policy),
        fault_around: if around == 0 {
            context.fault_around
        } else {
            around
        },
        advised: (policy, around) != (POLICY_CONTEXT, 0),
        end: found.end,
    };
    ensure!(
        found == expected,
        "Page {page}: {found:?}, not {expected:?}"
    );
    let same = model[page..]
        .iter()
        .take_while(|said| **said == model[page]);
    let end = page + same.count();
    // What comes behind the memory is not the model's.
    ensure!(
        end == model.len() || found.end == memory.at(end * PAGE),
        "Page {page}: {found:?}, the model ends at page {end}"
    );
    Ok(())
}

fn two_threads_advise_while_the_device_faults() -> CaseResult {
    const ROUNDS: usize = 24;
    let device = Device::open()?;
    let (memory, content) = filled(LEN, 313)?;
    let digest = pattern::sha256(&content);
    let stop = AtomicBool::new(false);
    let advise = |seed: u64| -> Result<u64> {
        let mut sequence = Sequence(seed);
        let mut calls = 0;
        while !stop.load(Ordering::Acquire) {
            let from = sequence.below(PAGES as u64) as usize;
            let count = (1 + sequence.below(16) as usize).min(PAGES - from);
            let advice: Advice = match sequence.below(4) {
                0 => Policy::OnFault.into(),
                1 => Policy::OnRequest.into(),
                2 => Policy::Never.into(),
                _ => Advice::default(),
            };
            device.advise(pages(&memory, from, count), advice)?;
            calls += 1;
            std::thread::yield_now();
        }
        Ok(calls)
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads = [1, 2].map(|seed| scope.spawn(move || advise(seed)));
        let work = || -> Result<()> {
            for round in 0..ROUNDS {
                ensure!(device.digest(&memory)? == digest, "Round {round}");
                device.evict(range_of(&memory))?;
                // All of it may be under `never` just now.
                match device.prefetch(range_of(&memory)) {
                    Err(error) if error.errno() == libc::EPERM => {}
                    moved => drop(moved?),
                }
            }
            Ok(())
        };
        let worked = work();
        stop.store(true, Ordering::Release);
        for thread in threads {
            let calls = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ensure!(calls > 0, "A thread gave no advice");
        }
        worked
    })?;
    // What is said last holds.
    device.evict(range_of(&memory))?;
    device.advise(range_of(&memory), Policy::Never)?;
    both_see(&device, &memory, &content)?;
    device.digest(&memory)?;
    let there = device.device_pages(&memory)?;
    ensure!(there == 0, "{there} pages moved at last");
    Ok(())
}

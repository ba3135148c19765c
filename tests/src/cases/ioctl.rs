// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls that make no sense get the errno of the contract and change nothing.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{bail, ensure, Context as _, Result};
use coax::Command;
use coax_abi::uapi::{
    Info, Migrate, Policy, Residency, Stats, Submit, Wait, IOC_ADVISE, IOC_INFO, IOC_MIGRATE,
    IOC_POLICY, IOC_POLICY_AT, IOC_RESET, IOC_RESIDENCY, IOC_STATS, IOC_SUBMIT, IOC_WAIT,
    MIGRATE_TO_DEVICE, MIGRATE_TO_SYSTEM, POLICY_NEVER,
};
use nix::errno::Errno;
use nix::unistd::{setuid, Uid};
use zerocopy::{FromBytes, IntoBytes};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::Device;
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE, READ_ONLY};
use crate::guest::process::fork;
use crate::guest::raw::{bad_ranges, ioctl, ioctl_at};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "ioctl",
    cases: &[
        case!(
            unknown_calls_give_enotty,
            "numbers, letters and sizes that are not ours"
        ),
        case!(
            bad_pointers_give_efault,
            "arguments in no memory of the program"
        ),
        case!(reserved_fields_must_be_zero, "room for later versions"),
        case!(
            bad_ranges_are_refused,
            "misaligned, empty, too long, wrapping, the kernel's"
        ),
        case!(
            bad_directions_and_policies_are_refused,
            "values that mean nothing"
        ),
        case!(
            processes_that_do_not_exist_give_esrch,
            "migrate by a process number"
        ),
        case!(
            unknown_commands_cannot_be_collected,
            "identifiers of nobody, and twice"
        ),
        case!(
            a_wait_that_runs_out_leaves_the_command,
            "ETIMEDOUT, then collected"
        ),
        case!(
            a_residency_vector_must_be_writable,
            "the answer's own memory"
        ),
        case!(without_privilege_less_is_told_and_done, "an ordinary user"),
    ],
};

const LEN: usize = 8 * PAGE;
const USER: u32 = 1000;

/// Makes the call and demands the errno.
fn expect<T: FromBytes + IntoBytes>(
    fd: BorrowedFd<'_>,
    what: &str,
    request: u32,
    mut argument: T,
    errno: Errno,
) -> Result<()> {
    match ioctl(fd, request, &mut argument) {
        Err(got) if got == errno => Ok(()),
        other => bail!("{what}: {other:?} instead of {errno}"),
    }
}

fn unknown_calls_give_enotty() -> CaseResult {
    let device = Device::open()?;
    let fd = device.as_fd();
    // A number after the last, another letter, a wrong size, a wrong direction.
    for request in [
        IOC_INFO + 0x40,
        IOC_INFO ^ 0x0f00,
        IOC_INFO + (8 << 16),
        IOC_SUBMIT ^ (3 << 30),
    ] {
        expect(
            fd,
            &format!("{request:#x}"),
            request,
            [0u64; 64],
            Errno::ENOTTY,
        )?;
    }
    Ok(())
}

fn bad_pointers_give_efault() -> CaseResult {
    let device = Device::open()?;
    let (hole, read_only) = (Mapping::anonymous(LEN)?, Mapping::anonymous(LEN)?);
    hole.unmap(0..LEN)?;
    read_only.protect(0..LEN, READ_ONLY)?;
    let addresses = [
        0,
        hole.address(),
        0xffff_8880_0000_0000,
        0x8000_0000_0000_0000,
    ];
    let calls = [
        IOC_INFO,
        IOC_SUBMIT,
        IOC_WAIT,
        IOC_MIGRATE,
        IOC_RESIDENCY,
        IOC_POLICY,
        IOC_STATS,
        IOC_ADVISE,
        IOC_POLICY_AT,
    ];
    for request in calls {
        for address in addresses {
            let got = ioctl_at(device.as_fd(), request, address);
            ensure!(
                got == Err(Errno::EFAULT),
                "{request:#x} at {address:#x}: {got:?}"
            );
        }
    }
    for request in [IOC_INFO, IOC_STATS] {
        let got = ioctl_at(device.as_fd(), request, read_only.address());
        ensure!(
            got == Err(Errno::EFAULT),
            "{request:#x} on read-only memory: {got:?}"
        );
    }
    Ok(())
}

fn reserved_fields_must_be_zero() -> CaseResult {
    let device = Device::open()?;
    let fd = device.as_fd();
    let submit = Submit {
        reserved: 1,
        ..Submit::default()
    };
    expect(fd, "submit", IOC_SUBMIT, submit, Errno::EINVAL)?;
    let id = device.start(Command::nop())?;
    let wait = Wait {
        id: 0,
        reserved: 1,
        ..Wait::default()
    };
    expect(fd, "wait", IOC_WAIT, wait, Errno::EINVAL)?;
    device.finish(id)?;
    Ok(())
}

fn bad_ranges_are_refused() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 1);
    for (what, addr, len) in bad_ranges(&memory) {
        for direction in [MIGRATE_TO_DEVICE, MIGRATE_TO_SYSTEM] {
            let migrate = Migrate {
                addr,
                len,
                direction,
                ..Migrate::default()
            };
            expect(device.as_fd(), what, IOC_MIGRATE, migrate, Errno::EINVAL)?;
        }
        let residency = Residency {
            addr,
            len,
            ..Residency::default()
        };
        expect(
            device.as_fd(),
            what,
            IOC_RESIDENCY,
            residency,
            Errno::EINVAL,
        )?;
    }
    ensure!(
        device.device_pages(&memory)? == 0,
        "A refused call moved pages"
    );
    Ok(())
}

fn bad_directions_and_policies_are_refused() -> CaseResult {
    let device = Device::open()?;
    let fd = device.as_fd();
    let memory = Mapping::anonymous(LEN)?;
    for direction in [0, 3, u32::MAX] {
        let migrate = Migrate {
            addr: memory.address(),
            len: LEN as u64,
            direction,
            ..Migrate::default()
        };
        expect(fd, "a direction", IOC_MIGRATE, migrate, Errno::EINVAL)?;
    }
    for policy in [POLICY_NEVER + 1, u32::MAX] {
        let policy = Policy {
            policy,
            fault_around: 0,
        };
        expect(fd, "a policy", IOC_POLICY, policy, Errno::EINVAL)?;
    }
    for fault_around in [3, 513, 1024, u32::MAX] {
        let policy = Policy {
            policy: POLICY_NEVER,
            fault_around,
        };
        expect(fd, "a fault-around", IOC_POLICY, policy, Errno::EINVAL)?;
    }
    // None of the refused calls has set the policy.
    memory.fill(0..LEN, 1);
    device.take(&memory)
}

fn processes_that_do_not_exist_give_esrch() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    // Over the kernel's own limit of process numbers, and negative as the kernel sees it.
    for pid in [0x7fff_ffff, u32::MAX] {
        let migrate = Migrate {
            addr: memory.address(),
            len: LEN as u64,
            direction: MIGRATE_TO_DEVICE,
            pid,
            ..Migrate::default()
        };
        expect(
            device.as_fd(),
            "a process number",
            IOC_MIGRATE,
            migrate,
            Errno::ESRCH,
        )?;
    }
    Ok(())
}

fn unknown_commands_cannot_be_collected() -> CaseResult {
    let device = Device::open()?;
    let fd = device.as_fd();
    for id in [0x1234_5678, u64::MAX] {
        expect(
            fd,
            "an identifier",
            IOC_WAIT,
            Wait {
                id,
                ..Wait::default()
            },
            Errno::EINVAL,
        )?;
    }
    let mut submit = Submit::default();
    ioctl(fd, IOC_SUBMIT, &mut submit).context("submit")?;
    let wait = Wait {
        id: submit.id,
        timeout_ms: u32::MAX,
        ..Wait::default()
    };
    let other = Device::open()?;
    // Identifiers are a context's own; another one may give out the same number later.
    expect(
        other.as_fd(),
        "another context's",
        IOC_WAIT,
        wait,
        Errno::EINVAL,
    )?;
    ioctl(fd, IOC_WAIT, &mut wait.clone()).context("wait")?;
    expect(fd, "a collected command", IOC_WAIT, wait, Errno::EINVAL)
}

fn a_wait_that_runs_out_leaves_the_command() -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    list::lay(&ring, ring.address());
    let id = device.start(list::walk(&ring, u64::MAX))?;
    for limit in [0, 1, 20] {
        let limit = std::time::Duration::from_millis(limit);
        let got = device.wait(id, Some(limit));
        ensure!(matches!(got, Err(coax::Error::TimedOut)), "{got:?}");
    }
    ring.store(list::NEXT, 0);
    device.finish(id)?;
    Ok(())
}

fn a_residency_vector_must_be_writable() -> CaseResult {
    let device = Device::open()?;
    let (memory, vector) = (Mapping::anonymous(LEN)?, Mapping::anonymous(PAGE)?);
    vector.protect(0..PAGE, READ_ONLY)?;
    for vector in [vector.address(), 1, 0xffff_8880_0000_0000] {
        let residency = Residency {
            addr: memory.address(),
            len: LEN as u64,
            vector,
            ..Residency::default()
        };
        expect(
            device.as_fd(),
            "a vector",
            IOC_RESIDENCY,
            residency,
            Errno::EFAULT,
        )?;
    }
    Ok(())
}

fn without_privilege_less_is_told_and_done() -> CaseResult {
    let parent = std::process::id();
    fork(|| {
        let device = Device::open()?;
        let memory = Mapping::anonymous(LEN)?;
        memory.fill(0..LEN, 1);
        setuid(Uid::from_raw(USER)).context("setuid")?;
        let fd = device.as_fd();
        let mut info = Info::default();
        ioctl(fd, IOC_INFO, &mut info).context("info")?;
        ensure!(info.first_pfn == 0, "Page frames are told to everybody");
        let mut stats = Stats::default();
        ioctl(fd, IOC_STATS, &mut stats).context("stats")?;
        let got = ioctl_at(fd, IOC_RESET, 0);
        ensure!(got == Err(Errno::EPERM), "reset: {got:?}");
        let migrate = Migrate {
            addr: memory.address(),
            len: LEN as u64,
            direction: MIGRATE_TO_DEVICE,
            pid: parent,
            ..Migrate::default()
        };
        expect(fd, "another's memory", IOC_MIGRATE, migrate, Errno::EACCES)?;
        // Its own it may still use.
        device.take(&memory)?;
        device.digest(&memory)?;
        Ok(())
    })?
    .succeeds()
}

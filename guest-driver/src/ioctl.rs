// SPDX-License-Identifier: GPL-2.0

//! The ioctls: copies each structure once, checks it, and calls the rest of the driver.
//!
//! No lock of the driver is held while user memory is touched: it may be device memory, whose
//! fault needs the driver.

mod policy;

use crate::{
    context::{checked, Context},
    kapi::{
        misc::{cond_resched, is_admin, not_supported},
        mm,
        notifier::IntervalNotifier,
        uaccess,
    },
    memory::DeviceMemory,
    migration::{Direction, Pipeline},
    residency::{windows, Unconcerned, Window},
    uapi, wire,
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::{aref::ARef, Arc},
    time::msecs_to_jiffies,
};
use zerocopy::{FromZeros, IntoBytes};

/// What is moved under one hold of the mmap lock, 64 MiB: long enough that the windows of it overlap,
/// short enough that who wants to change the mappings does not wait long.
const CHUNK_BYTES: u64 = 64 << 20;

/// Runs one call; its result is what `ioctl(2)` returns.
pub(crate) fn dispatch(context: &Context, cmd: u32, arg: usize) -> Result<isize> {
    match cmd {
        uapi::IOC_INFO => info(context, arg),
        uapi::IOC_SUBMIT => submit(context, arg),
        uapi::IOC_WAIT => wait(context, arg),
        uapi::IOC_MIGRATE => migrate(context, arg),
        uapi::IOC_RESIDENCY => residency(context, arg),
        uapi::IOC_POLICY => policy::set(context, arg),
        uapi::IOC_STATS => stats(context, arg),
        uapi::IOC_ADVISE => policy::advise(context, arg),
        uapi::IOC_POLICY_AT => policy::at(context, arg),
        uapi::IOC_RESET if !is_admin() => Err(EPERM),
        uapi::IOC_RESET => context.device.reset(),
        _ => Err(ENOTTY),
    }?;
    Ok(0)
}

fn info(context: &Context, arg: usize) -> Result {
    let device = &context.device;
    let memory = device.memory()?;
    uaccess::write(
        arg,
        &uapi::Info {
            version: uapi::UAPI_VERSION,
            mode: device.mode,
            max_contexts: device.max_contexts,
            command_queues: device.link.command_queues() as u32,
            device_pages: memory.pages() as u64,
            free_pages: memory.data().free_pages(),
            first_pfn: if is_admin() { memory.first_pfn() } else { 0 },
            node: device
                .node()
                .map_or(uapi::NO_NODE, |node| node.number() as u32),
            policy: device.first_policy(),
        },
    )
}

fn submit(context: &Context, arg: usize) -> Result {
    let mut submit: uapi::Submit = uaccess::read(arg)?;
    let (opcode, args) = checked(&submit)?;
    submit.id = context.submit(opcode, args)?;
    uaccess::write(arg, &submit)
}

fn wait(context: &Context, arg: usize) -> Result {
    let mut wait: uapi::Wait = uaccess::read(arg)?;
    if wait.reserved != 0 {
        return Err(EINVAL);
    }
    let limit = (wait.timeout_ms != u32::MAX).then(|| msecs_to_jiffies(wait.timeout_ms));
    let reply = context.commands.collect(wait.id, limit)?;
    wait.status = reply.status.get();
    wait.fault_va = reply.fault_va.get();
    wait.fault_access = reply.fault_access.get();
    wait.bytes_done = reply.bytes_done.get();
    wait.page_requests = reply.page_requests.get();
    wait.result = reply.result;
    uaccess::write(arg, &wait)
}

/// Checks a range that a call names.
fn check_range(mm: &MmWithUser, addr: u64, len: u64) -> Result {
    let end = addr.checked_add(len).ok_or(EINVAL)?;
    let aligned = addr % wire::PAGE_SIZE == 0 && len % wire::PAGE_SIZE == 0;
    if !aligned || len == 0 || len > uapi::MAX_RANGE_BYTES || end > mm::task_size(mm) {
        return Err(EINVAL);
    }
    Ok(())
}

fn migrate(context: &Context, arg: usize) -> Result {
    let mut migrate: uapi::Migrate = uaccess::read(arg)?;
    let direction = match migrate.direction {
        uapi::MIGRATE_TO_DEVICE => Direction::ToDevice { fill: false },
        uapi::MIGRATE_TO_SYSTEM => Direction::ToSystem,
        _ => return Err(EINVAL),
    };
    let to_device = direction != Direction::ToSystem;
    let mm: ARef<MmWithUser> = match migrate.pid {
        0 => context.mm.mmget_not_zero().ok_or(ESRCH)?,
        _ if !is_admin() => return Err(EACCES),
        pid => mm::of_pid(i32::try_from(pid).map_err(|_| ESRCH)?)?,
    };
    check_range(&mm, migrate.addr, migrate.len)?;
    // Of another process the context has a policy, but no advice.
    let own = mm::is_current(&mm);
    let policies = &context.mirror.policies;
    let forbidden = match own {
        _ if !to_device => false,
        true => policies
            .parts(migrate.addr..migrate.addr + migrate.len)
            .all(|(_, rule)| rule.policy == uapi::POLICY_NEVER),
        false => policies.context().policy == uapi::POLICY_NEVER,
    };
    if forbidden {
        return Err(EPERM);
    }
    if context.device.node().is_some() {
        return Err(not_supported());
    }
    (migrate.moved, migrate.already, migrate.left) = (0, 0, 0);
    let memory = context.device.memory()?;
    let mut look = None;
    let mut unmapped = false;
    let end = migrate.addr + migrate.len;
    let mut at = migrate.addr;
    while at < end {
        let next = (at + CHUNK_BYTES).min(end);
        let (moved, gap) = migrate_chunk(context, &memory, &mm, at..next, direction)?;
        unmapped |= gap;
        migrate.moved += moved;
        let npages = (next - at) / wire::PAGE_SIZE;
        if moved < npages {
            let look = match &mut look {
                Some(look) => look,
                none => none.insert(Look::new(&mm)?),
            };
            let kinds = look.residents(&memory, &mm, at, next - at)?;
            let on_device = kinds[usize::from(uapi::RESIDENT_DEVICE)];
            let on_system =
                kinds[usize::from(uapi::RESIDENT_SYSTEM)] + kinds[usize::from(uapi::RESIDENT_FILE)];
            let there = if to_device { on_device } else { on_system };
            migrate.already += there.saturating_sub(moved);
            migrate.left += if to_device {
                npages - on_device.min(npages)
            } else {
                on_device
            };
        }
        at = next;
        cond_resched();
    }
    uaccess::write(arg, &migrate)?;
    if unmapped {
        Err(EFAULT)
    } else {
        Ok(())
    }
}

/// Looks at a process's memory where not all of it moved.
struct Look {
    window: Window,
    notifier: Pin<KBox<IntervalNotifier<Unconcerned>>>,
}

impl Look {
    fn new(mm: &MmWithUser) -> Result<Self> {
        let unconcerned = Arc::new(Unconcerned, GFP_KERNEL)?;
        Ok(Look {
            window: Window::new()?,
            notifier: KBox::pin_init(IntervalNotifier::idle(mm, unconcerned), GFP_KERNEL)?,
        })
    }

    /// How many pages of `at` … `at + len` are of each kind.
    fn residents(
        &mut self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        at: u64,
        len: u64,
    ) -> Result<[u64; 4]> {
        let mut sum = [0; 4];
        for (addr, npages) in windows(at, len) {
            let counts = self.window.look(memory, &self.notifier, mm, addr, npages)?;
            sum.iter_mut()
                .zip(counts)
                .for_each(|(sum, count)| *sum += count);
        }
        Ok(sum)
    }
}

/// Moves the pages of `range`, mapping by mapping; returns how many moved and whether part of it is
/// not mapped.
fn migrate_chunk(
    context: &Context,
    memory: &DeviceMemory,
    mm: &MmWithUser,
    range: Range<u64>,
    direction: Direction,
) -> Result<(u64, bool)> {
    let mut pipeline = Pipeline::new(memory, direction, None, context.id.number);
    let own = mm::is_current(mm);
    if own {
        context.mirror.forget(range.start, range.end);
    }
    let to_device = direction != Direction::ToSystem;
    let (mut at, mut moved, mut gap) = (range.start as usize, 0, false);
    let end = range.end as usize;
    let guard = mm.mmap_read_lock();
    while at < end {
        let Some(vma) = mm::find_vma(mm, &guard, at).filter(|vma| vma.start() < end) else {
            gap = true;
            break;
        };
        gap |= vma.start() > at;
        let part = vma.start().max(at)..vma.end().min(end);
        at = part.end;
        if !mm::may_migrate(vma) {
            continue;
        }
        let mut run = |part| match pipeline.run(vma, part) {
            // A kind of mapping that does not migrate.
            Err(error) if error == EINVAL => Ok(0),
            result => result,
        };
        if !(own && to_device) {
            moved += run(part)?;
            continue;
        }
        let part = part.start as u64..part.end as u64;
        for (part, rule) in context.mirror.policies.parts(part) {
            if rule.policy != uapi::POLICY_NEVER {
                moved += run(part.start as usize..part.end as usize)?;
            }
        }
    }
    let stats = &context.mirror.stats;
    match to_device {
        true => stats.to_device.add(moved),
        false => stats.to_system.add(moved),
    }
    Ok((moved, gap))
}

fn residency(context: &Context, arg: usize) -> Result {
    let mut residency: uapi::Residency = uaccess::read(arg)?;
    let mm = context.mm.mmget_not_zero().ok_or(ESRCH)?;
    check_range(&mm, residency.addr, residency.len)?;
    let memory = context.device.memory()?;
    let mut look = Window::new()?;
    residency.pages = [0; 4];
    let mut to = residency.vector;
    for (addr, npages) in windows(residency.addr, residency.len) {
        let counts = look.look(&memory, &context.faults.data().notifier, &mm, addr, npages)?;
        for (total, count) in residency.pages.iter_mut().zip(counts) {
            *total += count;
        }
        if to != 0 {
            uaccess::write_bytes(to as usize, &look.kinds[..npages])?;
            to = to.checked_add(npages as u64).ok_or(EFAULT)?;
        }
        cond_resched();
    }
    uaccess::write(arg, &residency)
}

fn stats(context: &Context, arg: usize) -> Result {
    let mut device_stats = wire::DeviceStats::new_zeroed();
    let link = &context.device.link;
    // The driver's own counters are of most use when the device does not answer any more.
    let _ = link.control(wire::CONTROL_STATS, 0, 0, device_stats.as_mut_bytes());
    let mut stats = uapi::Stats::default();
    let own = &context.mirror.stats;
    stats.context_page_requests = own.page_requests.get();
    stats.context_to_device = own.to_device.get();
    stats.context_commands = own.commands.get();
    stats.context_invalidations = own.invalidations.get();
    stats.contexts = link.contexts.count();
    let all = &link.stats;
    stats.page_requests = all.page_requests.get();
    stats.translation_requests = all.translation_requests.get();
    stats.responses_success = all.responses_success.get();
    stats.responses_invalid = all.responses_invalid.get();
    stats.responses_failure = all.responses_failure.get();
    stats.invalidations = all.invalidations.get();
    stats.to_device_fault = all.to_device_fault.get();
    stats.to_device_request = all.to_device_request.get();
    stats.to_system_fault = all.to_system_fault.get();
    stats.to_system_request = all.to_system_request.get();
    stats.to_system_evict = all.to_system_evict.get();
    stats.device_full = all.device_full.get();
    stats.device_errors = all.device_errors.get();
    stats.first_migration_ns = all.first_migration_ns.get();
    for (i, to) in stats.device.iter_mut().enumerate() {
        let bytes = device_stats.as_bytes().get(i * 8..i * 8 + 8).ok_or(EIO)?;
        *to = u64::from_le_bytes(bytes.try_into().map_err(|_| EIO)?);
    }
    uaccess::write(arg, &stats)
}

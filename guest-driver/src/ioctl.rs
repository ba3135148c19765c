// SPDX-License-Identifier: GPL-2.0

//! The ioctls: copies each structure once, checks it, and calls the rest of the driver.
//!
//! No lock of the driver is held while user memory is touched: it may be device memory, whose
//! fault needs the driver.

mod policy;

use crate::{
    context::{checked, Context},
    kapi::{
        misc::{go_on, is_admin, may_trace, not_supported},
        mm, uaccess,
    },
    memory::DeviceMemory,
    migration::{chunks, Direction, RangeMove, Unfit, WINDOW_PAGES},
    residency::{next_mapped, window, windows, View},
    uapi, wire,
};
use core::ops::Range;
use kernel::{mm::MmWithUser, prelude::*, time::msecs_to_jiffies};
use zerocopy::{FromZeros, IntoBytes};

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
            mode: device.about.mode,
            max_contexts: device.max_contexts,
            command_queues: device.link.command_queues() as u32,
            device_pages: memory.frames().pages() as u64,
            free_pages: memory.free_pages(),
            first_pfn: if is_admin() {
                memory.frames().first_pfn()
            } else {
                0
            },
            node: memory.node(),
            policy: device.first_policy(),
        },
    )
}

fn submit(context: &Context, arg: usize) -> Result {
    let mut submit: uapi::Submit = uaccess::read(arg)?;
    let (opcode, args) = checked(&submit)?;
    // A command that began and whose identifier nobody gets would hold its place for ever.
    uaccess::write(arg, &submit)?;
    submit.id = context.submit(opcode, args)?;
    uaccess::write(arg, &submit).inspect_err(|_| context.commands.abandon(submit.id))
}

fn wait(context: &Context, arg: usize) -> Result {
    let mut wait: uapi::Wait = uaccess::read(arg)?;
    if wait.reserved != 0 {
        return Err(EINVAL);
    }
    let limit = (wait.timeout_ms != u32::MAX).then(|| msecs_to_jiffies(wait.timeout_ms));
    // What is collected is there no more.
    uaccess::write(arg, &wait)?;
    if wait.timeout_ms > 0 {
        let (link, number) = (&context.device.link, context.id.number);
        link.look_out(number, &context.faults, || {
            context.commands.may_ask(wait.id)
        });
    }
    let reply = match context.commands.collect(wait.id, limit) {
        // To begin anew is to go on, if there is no limit.
        Err(error) if error == EINTR && limit.is_none() => return Err(ERESTARTSYS),
        collected => collected?,
    };
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
    let mm = match migrate.pid {
        0 => mm::get(&context.mm).ok_or(ESRCH)?,
        _ if !is_admin() || !may_trace() => return Err(EACCES),
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
    // What the device has told of before does not move behind this call.
    context.settle();
    let memory = context.device.memory()?;
    let memory: &dyn DeviceMemory = &*memory;
    if !memory.moves_by_calls() {
        return Err(not_supported());
    }
    (migrate.moved, migrate.already, migrate.left) = (0, 0, 0);
    let mut mover = RangeMove::new(memory, &mm, &context.mirror, direction, Unfit::PassBy, None);
    let mut view = None;
    let mut unmapped = false;
    let range = migrate.addr..migrate.addr + migrate.len;
    for chunk in chunks(range.clone()) {
        go_on()?;
        let moved = mover.run(chunk.clone())?;
        unmapped |= moved.gap;
        let moved = moved.pages;
        migrate.moved += moved;
        let npages = (chunk.end - chunk.start) / wire::PAGE_SIZE;
        if moved < npages {
            let view = match &mut view {
                Some(view) => view,
                none => none.insert(View::new(memory, &mm, range.clone())?),
            };
            let kinds = residents(view, &mm, chunk)?;
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
    }
    uaccess::write(arg, &migrate)?;
    if unmapped {
        Err(EFAULT)
    } else {
        Ok(())
    }
}

/// How many pages of `range` are of each kind.
fn residents(view: &mut View<'_>, mm: &MmWithUser, range: Range<u64>) -> Result<[u64; 4]> {
    let mut sum = [0; 4];
    let mut at = range.start;
    while let Some((addr, npages)) = window(next_mapped(mm, at, range.end)?, range.end) {
        let counts = view.count(addr, npages)?;
        sum.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
        at = addr + npages as u64 * wire::PAGE_SIZE;
    }
    Ok(sum)
}

fn residency(context: &Context, arg: usize) -> Result {
    let mut residency: uapi::Residency = uaccess::read(arg)?;
    let mm = mm::get(&context.mm).ok_or(ESRCH)?;
    check_range(&mm, residency.addr, residency.len)?;
    context.settle();
    let memory = context.device.memory()?;
    let (start, end) = (residency.addr, residency.addr + residency.len);
    let mut view = View::new(&*memory, &mm, start..end)?;
    residency.pages = [0; 4];
    let vector = |at: u64| (residency.vector + (at - start) / wire::PAGE_SIZE) as usize;
    residency
        .vector
        .checked_add(residency.len / wire::PAGE_SIZE)
        .ok_or(EFAULT)?;
    let mut at = start;
    while at < end {
        let next = next_mapped(&mm, at, end)?;
        residency.pages[usize::from(uapi::RESIDENT_NONE)] += (next - at) / wire::PAGE_SIZE;
        if residency.vector != 0 {
            for (addr, npages) in windows(at, next - at) {
                uaccess::write_bytes(vector(addr), &[uapi::RESIDENT_NONE; WINDOW_PAGES][..npages])?;
                go_on()?;
            }
        }
        at = next;
        if let Some((addr, npages)) = window(next, end) {
            let counts = view.count(addr, npages)?;
            for (total, count) in residency.pages.iter_mut().zip(counts) {
                *total += count;
            }
            if residency.vector != 0 {
                uaccess::write_bytes(vector(addr), &view.kinds[..npages])?;
            }
            at += npages as u64 * wire::PAGE_SIZE;
        }
        go_on()?;
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

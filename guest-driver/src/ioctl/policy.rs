// SPDX-License-Identifier: GPL-2.0

//! The calls about policies: of the context, and of ranges.

use super::check_range;
use crate::{
    context::Context,
    kapi::{
        mm::{self, ReadGuard},
        uaccess,
    },
    migration::WINDOW_PAGES,
    policy::Advice,
    uapi,
};
use core::ops::Range;
use kernel::prelude::*;

/// Sets the context's policy.
pub(super) fn set(context: &Context, arg: usize) -> Result {
    let policy: uapi::Policy = uaccess::read(arg)?;
    check(context, policy.policy, policy.fault_around)?;
    let policies = &context.mirror.policies;
    policies.set_context(policy.policy, policy.fault_around);
    context.faults.data().watch();
    Ok(())
}

/// Checks a policy that a call names.
fn check(context: &Context, policy: u32, fault_around: u32) -> Result {
    let around_fits = fault_around == 0
        || (fault_around.is_power_of_two() && fault_around as usize <= WINDOW_PAGES);
    if policy > uapi::POLICY_NEVER || !around_fits {
        return Err(EINVAL);
    }
    // The policies are numbered from the most eager one on.
    if policy < context.device.most_eager_policy() {
        return Err(EPERM);
    }
    if policy == uapi::POLICY_ON_FAULT && !context.device.memory()?.may_serve_caller() {
        return Err(EACCES);
    }
    Ok(())
}

/// Sets the policy of a range.
pub(super) fn advise(context: &Context, arg: usize) -> Result {
    let asked: uapi::Advise = uaccess::read(arg)?;
    let mm = mm::get(&context.mm).ok_or(ESRCH)?;
    check_range(&mm, asked.addr, asked.len)?;
    let advice = Advice {
        policy: asked.policy,
        fault_around: asked.fault_around,
    };
    // The context's own policy is one that it may have.
    let named = match advice.policy {
        uapi::POLICY_CONTEXT => uapi::POLICY_NEVER,
        policy => policy,
    };
    check(context, named, advice.fault_around)?;
    let range = asked.addr..asked.addr + asked.len;
    let guard = ReadGuard::lock_killable(&mm)?;
    if !advice.is_none() && !is_mapped(&guard, range.clone()) {
        return Err(EFAULT);
    }
    let advised = context.mirror.policies.advise(range, advice);
    drop(guard);
    if advised.is_ok() {
        context.faults.data().watch();
    }
    advised
}

/// Whether all of `range` is mapped.
fn is_mapped(guard: &ReadGuard<'_>, range: Range<u64>) -> bool {
    let (mut at, end) = (range.start as usize, range.end as usize);
    while at < end {
        match guard.vma_lookup(at) {
            Some(vma) => at = vma.end(),
            None => return false,
        }
    }
    true
}

/// Says which policy holds at an address.
pub(super) fn at(context: &Context, arg: usize) -> Result {
    let mut asked: uapi::PolicyAt = uaccess::read(arg)?;
    let limit = mm::task_size(&context.mm);
    if asked.reserved != 0 || asked.addr >= limit {
        return Err(EINVAL);
    }
    let found = context.mirror.policies.at(asked.addr);
    asked.end = found.range.end.min(limit);
    asked.policy = found.rule.policy;
    asked.fault_around = found.rule.fault_around;
    asked.advised = found.advised.into();
    uaccess::write(arg, &asked)
}

// SPDX-License-Identifier: GPL-2.0

//! What the driver tells people and scripts as text: in debugfs of a device and of who uses it, in
//! `/proc/PID/fdinfo` of an open file.

use crate::{context::Context, link::Link, policy, stats::ContextStats};
use kernel::{fmt, prelude::*, seq_file::SeqFile, seq_print, sync::Arc};

/// Counters of the driver.
pub(crate) fn stats(link: &Arc<Link>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_fmt(fmt!("contexts {}\n{}", link.contexts.count(), link.stats))
}

/// A line for each open context.
pub(crate) fn contexts(link: &Arc<Link>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("context pid policy fault_around advised")?;
    for (name, _) in ContextStats::new().all() {
        f.write_fmt(fmt!(" {}", name))?;
    }
    f.write_str("\n")?;
    for (id, entry) in link.contexts.open() {
        let mirror = entry.faults.data().mirror();
        let rule = mirror.policies.context();
        f.write_fmt(fmt!(
            "{} {} {} {} {}",
            id.number,
            entry.process,
            policy::name(rule.policy),
            rule.fault_around,
            mirror.policies.count()
        ))?;
        for (_, value) in mirror.stats.all() {
            f.write_fmt(fmt!(" {}", value))?;
        }
        f.write_str("\n")?;
    }
    Ok(())
}

/// An open file, in `/proc/PID/fdinfo`.
pub(crate) fn file(context: &Context, to: &SeqFile) {
    let policies = &context.mirror.policies;
    let rule = policies.context();
    seq_print!(to, "coax-context:\t{}\n", context.id.number);
    let translation = match context.mirror.by_iommu {
        true => "pcie",
        false => "virtqueue",
    };
    seq_print!(to, "coax-translation:\t{}\n", translation);
    seq_print!(to, "coax-policy:\t{}\n", policy::name(rule.policy));
    seq_print!(to, "coax-fault-around:\t{}\n", rule.fault_around);
    for (name, value) in context.mirror.stats.all() {
        seq_print!(to, "coax-count:\t{} {}\n", name, value);
    }
    seq_print!(to, "coax-advised:\t{}\n", policies.count());
    for (range, advice) in policies.advised() {
        let (start, end, policy) = (range.start, range.end, policy::name(advice.policy));
        let around = advice.fault_around;
        seq_print!(
            to,
            "coax-advice:\t{:x}-{:x} {} {}\n",
            start,
            end,
            policy,
            around
        );
    }
}

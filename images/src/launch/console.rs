// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds the kernel's complaints among its console lines.
//!
//! Programs write to the console too, and may warn of what they like: only what comes behind one of the
//! kernel's time stamps is its own, and what init says.

/// What the kernel writes when something is wrong in it, and never otherwise.
const COMPLAINTS: &[&str] = &[
    // WARN_ON, and every report of lockdep.
    "WARNING:",
    // BUG_ON, page and list corruption, soft lockups, sleeping in atomic context, lockdep's limits.
    "BUG:",
    // Slab objects written to outside of them or after they were freed.
    "] BUG ",
    // Free pages written to.
    "pagealloc: memory corruption",
    "pagealloc: single bit error",
    // A lock whose class lockdep cannot tell, after which it looks at no other.
    "INFO: trying to register non-static key",
    "kernel BUG at",
    "Oops:",
    "general protection fault",
    "Kernel panic",
    // Rust code in the kernel.
    "panicked at",
    // Hung tasks and stalls.
    "blocked for more than",
    "detected stalls",
    "detected expedited stalls",
    "self-detected stall",
    "hard LOCKUP",
    // Sanitizers.
    "UBSAN:",
    "KASAN:",
    "kmemleak:",
    "unreferenced object 0x",
];

/// What looks like a complaint and is none.
const HARMLESS: &[&str] = &[
    // Where allocations are made to fail: it then looks at all of the object.
    "kmemleak: Cannot allocate a scan area",
    // There, too: files of an interrupt that could not be made are removed all the same (`kernel/irq/proc.c`).
    " at remove_proc_entry+",
];

/// Complaints after which the guest ends itself or never comes back.
const FATAL: &[&str] = &[
    "Kernel panic",
    "kernel BUG at",
    "Oops:",
    "general protection fault",
];

/// What init's lines begin with.
const INIT: &str = "coax-init: ";

/// Whether the kernel complains on this console line.
pub fn complaint(line: &str) -> bool {
    has_one_of(COMPLAINTS, line) && !has_one_of(HARMLESS, line)
}

/// Whether nothing more can be hoped for after this console line.
pub fn fatal(line: &str) -> bool {
    has_one_of(FATAL, line)
}

fn has_one_of(patterns: &[&str], line: &str) -> bool {
    let ours = of_kernel(line).or(line.starts_with(INIT).then_some(line));
    ours.is_some_and(|text| patterns.iter().any(|pattern| text.contains(pattern)))
}

/// From the kernel's time stamp on, `[` seconds `.` microseconds `]`; a program's line that has not ended
/// may stand before it.
fn of_kernel(line: &str) -> Option<&str> {
    let mut starts = line.match_indices('[').map(|(start, _)| start);
    starts.find_map(|start| {
        let text = line.get(start..)?;
        let (stamp, _) = text.get(1..)?.split_once(']')?;
        let (seconds, fraction) = stamp.trim_start().split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (digits(seconds) && digits(fraction)).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_the_kernel_are_found() {
        for line in [
            "[    3.14] WARNING: CPU: 1 PID: 77 at mm/migrate_device.c:1 x+0x1/0x2",
            "[    3.14] WARNING: possible circular locking dependency detected",
            "[    3.14] BUG: unable to handle page fault for address: ffff",
            "[    3.14] Oops: Oops: 0000 [#1] SMP",
            "[    3.14] Kernel panic - not syncing: Attempted to kill init!",
            "[   61.00] INFO: task coax-demo:77 blocked for more than 60 seconds.",
            "[    3.14] rust_kernel: panicked at src/context.rs:1:1:",
            "[   30.00] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
        ] {
            assert!(complaint(line), "missed: {line}");
        }
    }

    #[test]
    fn complaints_of_debug_kernels_are_found() {
        for line in [
            "[    3.14] WARNING: possible recursive locking detected",
            "[    3.14] WARNING: inconsistent lock state",
            "[    3.14] WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
            "[    3.14] WARNING: suspicious RCU usage",
            "[    3.14] WARNING: held lock freed!",
            "[    3.14] [ BUG: Invalid wait context ]",
            "[    3.14] BUG: MAX_LOCKDEP_ENTRIES too low!",
            "[    3.14] INFO: trying to register non-static key.",
            "[    3.14] BUG: sleeping function called from invalid context at mm/util.c:1",
            "[    3.14] BUG: using smp_processor_id() in preemptible [00000000] code: x/77",
            "[    3.14] BUG: Bad page state in process coax-demo  pfn:12345",
            "[    3.14] BUG kmalloc-64 (Tainted: G           O       ): Poison overwritten",
            "[    3.14] pagealloc: memory corruption",
            "[    3.14] BUG: KASAN: slab-use-after-free in coax_main+0x1/0x2 [coax]",
            "[    3.14] kmemleak: Cannot allocate a kmemleak_object structure",
            "coax-init: BUG: the driver lost memory 3 times",
            "[   70.00] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }",
        ] {
            assert!(complaint(line), "missed: {line}");
        }
    }

    #[test]
    fn ordinary_lines_are_no_complaints() {
        for line in [
            "[    0.00] ACPI: SLIT table looks invalid",
            "[    1.50] coax: loading out-of-tree module taints kernel.",
            "[    1.60] coax virtio1: a warning about nothing",
            "[    1.60] debugfs: bugs are elsewhere",
            "[    1.60] DEBUG output follows",
        ] {
            assert!(!complaint(line), "taken for a complaint: {line}");
        }
    }

    #[test]
    fn a_warning_is_not_fatal() {
        assert!(!fatal(
            "[    3.14] WARNING: CPU: 1 PID: 77 at mm/migrate_device.c:1"
        ));
        assert!(fatal("[    3.14] Oops: Oops: 0000 [#1] SMP"));
    }

    #[test]
    fn what_a_program_writes_is_no_complaint_of_the_kernel() {
        for line in [
            "WARNING: the cat is out",
            "[   15.748388] kmemleak: Cannot allocate a scan area, scanning the full object",
            "make[1]: WARNING: x",
            "[note] Oops: nothing",
            "[1.5a] BUG: of a program",
            "Kernel panic - not syncing, said the book",
        ] {
            assert!(!complaint(line) && !fatal(line), "{line}");
        }
        assert!(complaint("half a line of a program[    3.14] WARNING: x"));
    }
}

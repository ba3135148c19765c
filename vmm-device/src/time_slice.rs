// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Short time slices for threads that somebody waits for.
//!
//! Of those that want a processor, Linux runs the one whose slice would end first, and one that has woken does not
//! wait until others have used theirs up (`sched_ext` aside: `kernel/sched/fair.c`). So a thread with a short slice
//! runs sooner, and no more than others in all: that takes no privilege. Slices of a thread's own came with Linux
//! 6.12; kernels before it ignore the wish, and threads of other policies than the ordinary one are left alone.
// UNSAFETY: no crate of ours has `sched_setattr(2)`.
#![expect(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::time::Duration;

/// The shortest that the kernel gives.
const SLICE: Duration = Duration::from_micros(100);

/// Gives this thread a short slice, if it is an ordinary one.
///
/// # Errors
///
/// Those of the system call, as in a sandbox that does not know it; the thread then runs as before.
pub fn shorten() -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER.unsigned_abs() {
        return Ok(());
    }
    attributes.sched_runtime = SLICE.as_nanos() as u64;
    // SAFETY: The kernel reads a structure of the size that it names, for this thread (0).
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    outcome(result)
}

/// How this thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = attributes.size;
    // SAFETY: The kernel writes at most as many bytes as it is told that there are.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    outcome(result).map(|()| attributes)
}

fn outcome(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_is_shortened_and_nothing_else() -> io::Result<()> {
        let before = attributes()?;
        shorten()?;
        let after = attributes()?;
        assert_eq!(after.sched_policy, before.sched_policy);
        assert_eq!(after.sched_nice, before.sched_nice);
        // Kernels without slices of a thread's own tell none.
        if before.sched_runtime > 0 {
            assert_eq!(u128::from(after.sched_runtime), SLICE.as_nanos());
        }
        Ok(())
    }
}

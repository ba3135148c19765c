// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the library says in somebody else's program: lines that may be lost, and end nothing by that.
//!
//! Nothing here panics, since calls come from C, or takes a lock, since a child of `fork` may report.
// UNSAFETY: standard error is written to, and SIGPIPE held off, by calls that Rust has no safe form of.
#![expect(unsafe_code)]

use std::fmt::Arguments;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;

/// Says a line on standard error; what that does not take at once is lost.
pub fn say(text: Arguments<'_>) {
    let line = format!("coax-blas: {text}\n");
    without_sigpipe(|| {
        // SAFETY: As many bytes as the line has are read. Any number may be written to as a descriptor.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    });
}

/// Appends a line to a file, in one write, so that lines of several processes do not mix. One that cannot be
/// written is complained of, and ends nothing.
pub fn append(path: &Path, mut line: String) {
    line.push('\n');
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| without_sigpipe(|| file.write_all(line.as_bytes())));
    if let Err(error) = written {
        say(format_args!("cannot write {}: {error}", path.display()));
    }
}

/// Says why, and ends the program.
pub fn abort(why: Arguments<'_>) -> ! {
    say(why);
    std::process::abort()
}

/// Writes something whose reader may have gone, without the signal that would end the program then.
pub fn without_sigpipe<T>(write: impl FnOnce() -> T) -> T {
    let mut sets = [MaybeUninit::<libc::sigset_t>::uninit(); 3];
    let [pipe, before, pending] = sets.each_mut().map(|set| set.as_mut_ptr());
    // SAFETY: The sets are there until the end of this call, and each is written before it is read. The signal
    // is this thread's own: a failed write sends it to who wrote.
    let was_pending = unsafe {
        libc::sigemptyset(pipe);
        libc::sigaddset(pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, pipe, before);
        libc::sigemptyset(pending);
        libc::sigpending(pending);
        libc::sigismember(pending, libc::SIGPIPE) == 1
    };
    let written = write();
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: As above; where a place may be null it is.
    unsafe {
        // One that was there before is the program's.
        if !was_pending {
            libc::sigtimedwait(pipe, ptr::null_mut(), &at_once);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut());
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// The signals of this thread that are blocked, and those that wait.
    fn signals() -> (String, String) {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("it is there");
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the kernel tells it").to_owned()
        };
        (of("SigBlk:"), of("SigPnd:"))
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error_and_leaves_no_signal() {
        let before = signals();
        let (reader, mut writer) = UnixStream::pair().expect("a pair");
        drop(reader);
        let error = without_sigpipe(|| writer.write_all(b"x")).expect_err("nobody reads");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(signals(), before);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An open device file: submitting commands and collecting them.
// UNSAFETY: `submit` and `run` hand bare addresses on; what they demand is in their `# Safety`. A descriptor
// may have been closed by others, so it is not always dropped.
#![expect(unsafe_code)]

use std::fmt::Arguments;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coax_abi::uapi;

use crate::command::{Command, Completion};
use crate::error::Error;
use crate::stats::Stats;
use crate::sys::{self, FileId};

/// The first device.
pub const DEFAULT_DEVICE: &str = "/dev/coax0";

/// An open device file, bound to the memory of the process that opened it.
///
/// Threads may share it. A child made by `fork` may not use it (`EPERM`) and should open its
/// own. Dropping it closes the file; with the last descriptor of it the driver aborts what is
/// still in flight and waits for the device to let go of the memory.
///
/// As a file descriptor it can be polled: `POLLIN` says that a command is done and not yet
/// collected.
///
/// Programs that close descriptors which they did not open, as daemons do, close this one as well, and may
/// get another file by the same number. [`is_open`](Self::is_open) tells, and dropping a context leaves a file
/// that is not the device's alone.
#[derive(Debug)]
pub struct Context {
    fd: ManuallyDrop<OwnedFd>,
    file: FileId,
    /// Tells identifiers of this context from those of others, whose numbers are the same.
    serial: u64,
}

/// A submitted command, good for [`Context::wait`] of the context that it was submitted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId {
    serial: u64,
    id: u64,
}

impl CommandId {
    /// The driver's number of the command, for C callers.
    pub(crate) fn number(self) -> u64 {
        self.id
    }
}

impl Context {
    /// The identifier of a number that a C caller kept.
    pub(crate) fn command_id(&self, number: u64) -> CommandId {
        CommandId {
            serial: self.serial,
            id: number,
        }
    }

    /// Opens the first device.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if there is none or no right to it, [`Error::Version`] if the driver
    /// speaks another version.
    pub fn open() -> Result<Self, Error> {
        Self::open_path(DEFAULT_DEVICE)
    }

    /// Opens the device with the given file.
    ///
    /// # Errors
    ///
    /// As [`Context::open`], and [`Error::Call`] if the file is no coax device.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| Error::Open {
                path: path.to_owned(),
                source,
            })?;
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let context = Self {
            file: sys::file_of(file.as_fd()).map_err(refused("fstat"))?,
            fd: ManuallyDrop::new(file.into()),
            serial,
        };
        let found = context.info()?.version;
        if found != uapi::UAPI_VERSION {
            return Err(Error::Version { found });
        }
        Ok(context)
    }

    /// Whether the descriptor is still of the device's file: nobody has closed it behind this context's
    /// back. A file of the same device that the program has opened under the number meanwhile is taken for it.
    pub fn is_open(&self) -> bool {
        sys::file_of(self.as_fd()).is_ok_and(|file| file == self.file)
    }

    /// What the device is.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn info(&self) -> Result<uapi::Info, Error> {
        sys::info(self.as_fd()).map_err(refused("COAX_IOC_INFO"))
    }

    /// Counters of this context, the driver and the device.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn stats(&self) -> Result<Stats, Error> {
        Ok(Stats::new(
            sys::stats(self.as_fd()).map_err(refused("COAX_IOC_STATS"))?,
        ))
    }

    /// Takes the device out of service and back: all commands of all contexts end as aborted
    /// and all device pages go to system memory.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with `EPERM` without `CAP_SYS_ADMIN`.
    pub fn reset(&self) -> Result<(), Error> {
        sys::reset(self.as_fd()).map_err(refused("COAX_IOC_RESET"))
    }

    /// Starts a command and returns at once.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with `EBUSY` when too many commands are not collected yet, `EPERM` from
    /// another process than the opener's, `ENODEV` after removal of the device.
    ///
    /// # Safety
    ///
    /// Until the command was collected by [`wait`](Self::wait), or all descriptors of this
    /// context are closed, for the memory that the command names or reaches through pointers:
    /// - what the device reads stays allocated and is not written;
    /// - what the device writes stays allocated, is accessed by nobody else and may hold any
    ///   bytes afterwards;
    /// - words that it changes atomically stay allocated and are accessed by atomic operations
    ///   only.
    pub unsafe fn submit(&self, command: Command) -> Result<CommandId, Error> {
        let mut submit = uapi::Submit {
            opcode: command.opcode,
            arg: command.args,
            ..Default::default()
        };
        // SAFETY: The caller promises about the memory what `sys::submit` demands.
        unsafe { sys::submit(self.as_fd(), &mut submit) }.map_err(refused("COAX_IOC_SUBMIT"))?;
        Ok(CommandId {
            serial: self.serial,
            id: submit.id,
        })
    }

    /// Collects a command, waiting up to `timeout` for it, without limit if that is `None`.
    /// Signals do not end the wait.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`]: not done yet, can be collected later.
    /// - [`Error::Command`]: it was collected and had failed.
    /// - [`Error::Argument`]: it was submitted in another context.
    /// - [`Error::Call`] with `EINVAL`: it was collected before, or another thread is at it;
    ///   with `ENODEV`: the device is gone, and the command with it.
    pub fn wait(&self, id: CommandId, timeout: Option<Duration>) -> Result<Completion, Error> {
        // A number of another context could name a command that a safe call still waits for.
        if id.serial != self.serial {
            return Err(Error::Argument(
                "the command was submitted in another context",
            ));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let mut wait = uapi::Wait {
                id: id.id,
                timeout_ms: milliseconds_until(deadline),
                ..Default::default()
            };
            match sys::wait(self.as_fd(), &mut wait) {
                Ok(()) => return Ok(Completion::from_wait(&wait)?),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {
                    // A wait longer than an ioctl can express goes on in another one.
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(Error::TimedOut);
                    }
                }
                Err(error) => return Err(refused("COAX_IOC_WAIT")(error)),
            }
        }
    }

    /// Runs a command to its end. When this returns the device has let go of the memory.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] as [`submit`](Self::submit), [`Error::Command`] if the command failed.
    ///
    /// # Aborts
    ///
    /// Ends the process if the command was submitted and cannot be collected, which the
    /// driver's contract excludes while the device exists: the device might go on writing.
    ///
    /// # Safety
    ///
    /// As [`submit`](Self::submit), for the time of the call.
    pub unsafe fn run(&self, command: Command) -> Result<Completion, Error> {
        // SAFETY: The command is collected below, so the caller's promise covers its time.
        let id = unsafe { self.submit(command) }?;
        match self.wait(id, None) {
            Err(Error::Call { call, source }) if source.raw_os_error() != Some(libc::ENODEV) => {
                abort(format_args!(
                    "a command in flight cannot be collected ({call}: {source})"
                ))
            }
            collected => collected,
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.is_open() {
            // SAFETY: Dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

impl AsFd for Context {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Says why, if standard error takes that, and ends the process. No panic can come before the end: who calls
/// from C would go on, and so would the device.
fn abort(why: Arguments<'_>) -> ! {
    let _ = writeln!(io::stderr(), "coax: {why}");
    std::process::abort()
}

/// Makes the error of the named ioctl.
pub(crate) fn refused(call: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Call { call, source }
}

/// Time left in the unit of the ioctl, rounded up so that no wait ends early.
fn milliseconds_until(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else {
        return u32::MAX;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // `u32::MAX` itself means "without limit".
    u32::try_from(left.as_nanos().div_ceil(1_000_000))
        .unwrap_or(u32::MAX)
        .min(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn missing_device_names_the_path() {
        let error = Context::open_path("/nonexistent/coax9")
            .map(drop)
            .expect_err("there is no such file");
        assert_eq!(error.to_string(), "Cannot open /nonexistent/coax9");
        assert_eq!(error.errno(), libc::ENOENT);
    }

    #[test]
    fn file_that_is_no_device_is_refused() {
        let error = Context::open_path("/dev/null")
            .map(drop)
            .expect_err("not a device");
        assert!(
            matches!(
                error,
                Error::Call {
                    call: "COAX_IOC_INFO",
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn the_end_comes_though_it_cannot_be_told() {
        use std::os::unix::process::ExitStatusExt as _;
        const CHILD: &str = "COAX_TEST_CHILD";
        const THIS: &str = "context::tests::the_end_comes_though_it_cannot_be_told";
        if std::env::var_os(CHILD).is_some() {
            // As the calls from C do with what panics.
            let _ = std::panic::catch_unwind(|| abort(format_args!("a test")));
            return;
        }
        let full = File::options().write(true).open("/dev/full");
        let status = std::env::current_exe().and_then(|program| {
            std::process::Command::new(program)
                .args(["--nocapture", "--exact", THIS])
                .env(CHILD, "1")
                .stderr(full?)
                .status()
        });
        let status = status.expect("the test starts itself");
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    }

    #[test]
    fn another_file_under_the_number_is_left_alone() {
        let own = tempfile::tempfile().expect("a temporary file");
        let kept = own.try_clone().expect("a descriptor");
        let mut context = Context {
            file: sys::file_of(own.as_fd()).expect("it is open"),
            fd: ManuallyDrop::new(own.into()),
            serial: 0,
        };
        assert!(context.is_open());
        // As if the number were another file's now.
        let other = File::open("/dev/null").expect("it is everywhere");
        context.file = sys::file_of(other.as_fd()).expect("it is open");
        assert!(!context.is_open());
        let number = context.as_fd().as_raw_fd();
        drop(context);
        let path = format!("/proc/self/fd/{number}");
        let left = std::fs::metadata(path).expect("the file is still open");
        assert_eq!(left.ino(), kept.metadata().expect("it is open").ino());
    }

    #[test]
    fn timeouts_round_up_and_never_become_endless() {
        assert_eq!(milliseconds_until(None), u32::MAX);
        assert_eq!(milliseconds_until(Some(Instant::now())), 0);
        let soon = milliseconds_until(Some(Instant::now() + Duration::from_micros(1500)));
        assert!((1..=2).contains(&soon), "{soon}");
        let far = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
        assert_eq!(milliseconds_until(Some(far)), u32::MAX - 1);
    }
}

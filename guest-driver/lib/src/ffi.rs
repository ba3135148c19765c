// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The C interface of `include/coax.h`: negative errno, and no panic across the edge.
// UNSAFETY: C callers hand over raw pointers and exported names must not be mangled; what the
// pointers must be is in the header and in each `# Safety`.
#![expect(unsafe_code)]

use std::ffi::{c_char, c_int, CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use coax_abi::uapi;
use coax_abi::wire::{self, RESULT_BYTES};

use crate::command::{Command, Completion};
use crate::context::{Context, DEFAULT_DEVICE};
use crate::error::{Error, Failure, Status};

mod atomics;
mod compute;
mod memory;
mod types;

pub use types::*;

const NULL_POINTER: Error = Error::Argument("a pointer is null");

/// Runs a call; errors become negative errno and a panic becomes `-ENOTRECOVERABLE`.
fn guard(body: impl FnOnce() -> Result<(), Error>) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => -error.errno(),
        Err(_) => -libc::ENOTRECOVERABLE,
    }
}

/// The context behind a C pointer.
///
/// # Safety
///
/// `context` is null or from `coax_open`, and not closed during `'a`.
unsafe fn context<'a>(context: *const Context) -> Result<&'a Context, Error> {
    // SAFETY: By the caller's promise.
    unsafe { context.as_ref() }.ok_or(NULL_POINTER)
}

/// Stores an out parameter.
///
/// # Safety
///
/// `out` is null or may be written.
unsafe fn store<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: Not null, so it may be written by the caller's promise.
        unsafe { out.write(value) }
    }
}

/// Stores how a command ended, if it ended, and passes failures on.
///
/// # Safety
///
/// As [`store`].
unsafe fn finish(
    outcome: Result<Completion, Error>,
    out: *mut coax_completion,
) -> Result<(), Error> {
    let raw = match &outcome {
        Ok(done) => coax_completion {
            bytes_done: done.bytes_done,
            page_requests: done.page_requests,
            result: done.result,
            ..Default::default()
        },
        Err(Error::Command(failure)) => failed(failure),
        Err(_) => coax_completion::default(),
    };
    // SAFETY: By the caller's promise.
    unsafe { store(out, raw) };
    outcome.map(drop)
}

/// A failed command as C sees it.
fn failed(failure: &Failure) -> coax_completion {
    let (address, access) = failure
        .fault
        .map_or((0, None), |fault| (fault.address, fault.access));
    coax_completion {
        status: failure.status.code(),
        fault_access: access.map_or(0, |access| match access {
            crate::Access::Read => wire::ACCESS_READ,
            crate::Access::Write => wire::ACCESS_WRITE,
            crate::Access::Atomic => wire::ACCESS_READ | wire::ACCESS_WRITE | wire::ACCESS_ATOMIC,
        }),
        fault_va: address,
        bytes_done: failure.bytes_done,
        page_requests: failure.page_requests,
        result: [0; RESULT_BYTES],
    }
}

/// Runs a command for a C caller.
///
/// # Safety
///
/// As [`context`], [`store`] and [`Context::run`].
unsafe fn run(this: *const Context, command: Command, out: *mut coax_completion) -> c_int {
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, |_| (), out) }
}

/// The command behind a C pointer.
///
/// # Safety
///
/// `command` is null or may be read.
unsafe fn command(command: *const coax_command) -> Result<Command, Error> {
    // SAFETY: By the caller's promise.
    let raw = unsafe { command.as_ref() }.ok_or(NULL_POINTER)?;
    if raw.reserved != 0 {
        return Err(Error::Argument("reserved must be zero"));
    }
    Ok(Command {
        opcode: raw.opcode,
        args: raw.arg,
    })
}

/// The address of C memory, for the device.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// Runs a command whose result has an out parameter of its own, which `store_result` fills.
///
/// # Safety
///
/// As [`run`].
unsafe fn run_then(
    this: *const Context,
    command: Command,
    store_result: impl FnOnce(&Completion),
    out: *mut coax_completion,
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        // SAFETY: By the caller's promise.
        let outcome = unsafe { this.run(command) };
        if let Ok(done) = &outcome {
            store_result(done);
        }
        // SAFETY: By the caller's promise.
        unsafe { finish(outcome, out) }
    })
}

/// Opens a device; a null `path` means the first one.
///
/// # Safety
///
/// `path` is null or a C string, `out` may be written.
#[no_mangle]
pub unsafe extern "C" fn coax_open(path: *const c_char, out: *mut *mut Context) -> c_int {
    guard(|| {
        if out.is_null() {
            return Err(NULL_POINTER);
        }
        let context = if path.is_null() {
            Context::open_path(DEFAULT_DEVICE)
        } else {
            // SAFETY: Not null, so it is a C string by the caller's promise.
            let path = unsafe { CStr::from_ptr(path) };
            Context::open_path(OsStr::from_bytes(path.to_bytes()))
        }?;
        // SAFETY: `out` is not null and may be written by the caller's promise.
        unsafe { store(out, Box::into_raw(Box::new(context))) };
        Ok(())
    })
}

/// Closes a device.
///
/// # Safety
///
/// `this` is null or from `coax_open`, and not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn coax_close(this: *mut Context) {
    if !this.is_null() {
        // SAFETY: `coax_open` made it by `Box::into_raw`, and it is given back only once by
        // the caller's promise.
        drop(unsafe { Box::from_raw(this) });
    }
}

/// The file descriptor, for `poll`.
///
/// # Safety
///
/// `this` is null or from `coax_open`, and not closed meanwhile.
#[no_mangle]
pub unsafe extern "C" fn coax_fd(this: *const Context) -> c_int {
    // SAFETY: By the caller's promise.
    match unsafe { context(this) } {
        Ok(this) => this.as_fd().as_raw_fd(),
        Err(error) => -error.errno(),
    }
}

/// The reason of a status in words.
#[no_mangle]
pub extern "C" fn coax_reason(status: u32) -> *const c_char {
    Status::from_code(status)
        .map_or(c"done", Status::reason)
        .as_ptr()
}

/// What the device is.
///
/// # Safety
///
/// As [`coax_fd`]; `out` is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn coax_info(this: *const Context, out: *mut uapi::Info) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let info = unsafe { context(this) }?.info()?;
        // SAFETY: By the caller's promise.
        unsafe { store(out, info) };
        Ok(())
    })
}

/// Starts a command.
///
/// # Safety
///
/// As [`coax_fd`] and [`Context::submit`]; `request` is null or may be read, `id` null or written.
#[no_mangle]
pub unsafe extern "C" fn coax_submit(
    this: *const Context,
    request: *const coax_command,
    id: *mut u64,
) -> c_int {
    guard(|| {
        // A command whose identifier is lost could never be collected.
        if id.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        // SAFETY: By the caller's promise.
        let request = unsafe { command(request) }?;
        // SAFETY: By the caller's promise.
        let submitted = unsafe { this.submit(request) }?;
        // SAFETY: By the caller's promise.
        unsafe { store(id, submitted.number()) };
        Ok(())
    })
}

/// Collects a command; a negative timeout waits without limit.
///
/// # Safety
///
/// As [`coax_fd`]; `out` is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn coax_wait(
    this: *const Context,
    id: u64,
    timeout_ms: c_int,
    out: *mut coax_completion,
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let outcome = this.wait(this.command_id(id), timeout);
        // SAFETY: By the caller's promise.
        unsafe { finish(outcome, out) }
    })
}

/// Runs a command to its end.
///
/// # Safety
///
/// As [`coax_fd`] and [`Context::run`]; `request` is null or may be read, `out` null or written.
#[no_mangle]
pub unsafe extern "C" fn coax_run(
    this: *const Context,
    request: *const coax_command,
    out: *mut coax_completion,
) -> c_int {
    // SAFETY: By the caller's promise.
    match unsafe { command(request) } {
        // SAFETY: By the caller's promise.
        Ok(request) => unsafe { run(this, request, out) },
        Err(error) => -error.errno(),
    }
}

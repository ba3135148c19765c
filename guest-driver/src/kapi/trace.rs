// SPDX-License-Identifier: GPL-2.0

//! The driver's tracepoints, defined in `trace.h`.

use crate::sys;

macro_rules! tracepoint {
    ($(#[$doc:meta])* $name:ident, $shim:ident, ($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) {
            // SAFETY: A tracepoint takes plain numbers and has no preconditions.
            unsafe { sys::$shim($($arg),*) }
        }
    };
}

tracepoint!(
    /// Something has to be done for a request.
    page_request, coax_trace_page_request, (context: u32, va: u64, npages: u32, flags: u32));
tracepoint!(
    /// It was answered.
    group_response, coax_trace_group_response, (context: u32, tag: u32, code: u32));
tracepoint!(
    /// Pages moved to device memory.
    to_device, coax_trace_to_device, (context: u32, va: u64, pages: u64));
tracepoint!(
    /// Pages moved to system memory.
    to_system, coax_trace_to_system, (va: u64, pages: u64, cause: u32));
tracepoint!(
    /// An invalidation was sent.
    invalidate, coax_trace_invalidate, (context: u32, start: u64, end: u64));
tracepoint!(
    /// A command was submitted.
    command, coax_trace_command, (context: u32, opcode: u32, id: u64));
tracepoint!(
    /// A command was answered.
    command_done, coax_trace_command_done, (context: u32, id: u64, status: u32));

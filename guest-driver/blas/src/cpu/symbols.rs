// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Symbols of the library behind this one.
// UNSAFETY: the loader is asked for them.
#![expect(unsafe_code)]

use std::ffi::{c_void, CStr};
use std::sync::OnceLock;

use crate::message;

/// Name that this library needs the CPU's BLAS by.
const LIBRARY: &str = concat!(env!("COAX_CPU_BLAS"), "\0");

/// Address of a function of the CPU's BLAS. A program that calls one that is not there ends, as it would
/// if the loader had found out.
pub fn symbol(name: &CStr) -> *mut c_void {
    static HANDLE: OnceLock<usize> = OnceLock::new();
    let handle = *HANDLE.get_or_init(|| {
        // The loader has it by this name already: this library needs it.
        let (name, flags) = (LIBRARY.as_ptr().cast(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        // SAFETY: The name ends with a zero byte, and nothing is loaded that would run code.
        let handle = unsafe { libc::dlopen(name, flags) };
        handle.expose_provenance()
    });
    let handle = match handle {
        0 => libc::RTLD_NEXT,
        handle => std::ptr::with_exposed_provenance_mut(handle),
    };
    // SAFETY: The handle is one of the loader's, or the one that means "after this library"; the name
    // ends with a zero byte.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if address.is_null() {
        message::abort(format_args!(
            "the CPU's BLAS behind {} has no {}; see the README about cpu-blas/chosen",
            env!("COAX_CPU_BLAS"),
            name.to_string_lossy()
        ));
    }
    address
}

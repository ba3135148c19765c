// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Symbols of the library behind this one, and of those that programs bring along.
// UNSAFETY: the loader is asked for them.
#![expect(unsafe_code)]

use std::ffi::{c_int, c_void, CStr, CString};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use crate::message;

/// Name that this library needs the CPU's BLAS by.
const LIBRARY: &str = concat!(env!("COAX_CPU_BLAS"), "\0");

/// Address of a function of the CPU's BLAS: of the library behind this one, or, by the names that only
/// libraries have that programs bring along, of one of those. A program that calls one that is not there ends,
/// as it would if the loader had found out.
pub fn symbol(name: &CStr) -> *mut c_void {
    let address = behind(name).or_else(|| brought_along(name));
    address.unwrap_or_else(|| {
        message::abort(format_args!(
            "the CPU's BLAS behind {} has no {}, and no other library that is loaded; see the README about \
             cpu-blas/chosen",
            env!("COAX_CPU_BLAS"),
            name.to_string_lossy()
        ))
    })
}

/// The function in the library that this one needs.
fn behind(name: &CStr) -> Option<*mut c_void> {
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
    (!address.is_null()).then_some(address)
}

/// The function in any library that is loaded but this one. A library that a program has opened for itself
/// alone is found by nothing else: the loader looks for symbols of such only where they were asked for.
fn brought_along(name: &CStr) -> Option<*mut c_void> {
    let own = object_of((symbol as fn(&CStr) -> *mut c_void) as *const c_void);
    loaded().into_iter().find_map(|path| {
        // SAFETY: The name ends with a zero byte, and nothing is loaded that would run code. What is found stays
        // loaded, since the handle is not closed.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            return None;
        }
        // SAFETY: The handle is the loader's; the name ends with a zero byte.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if !address.is_null() && object_of(address) != own {
            return Some(address);
        }
        // SAFETY: Opened above, and not used any more.
        unsafe { libc::dlclose(handle) };
        None
    })
}

/// Where the object begins that an address lies in; 0 if in none.
fn object_of(address: *const c_void) -> usize {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: Any address may be asked about; the answer is written to `info`, for which zeroes are valid too.
    let info = unsafe {
        libc::dladdr(address, info.as_mut_ptr());
        info.assume_init()
    };
    info.dli_fbase.addr()
}

/// Paths of all libraries that are loaded, in the order in which they were.
fn loaded() -> Vec<CString> {
    let mut paths: Vec<CString> = Vec::new();
    // SAFETY: The callback gets the vector, which nobody else uses meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut paths).cast()) };
    paths
}

/// Notes the path of an object, and goes on.
unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, paths: *mut c_void) -> c_int {
    // SAFETY: The loader calls it with an object's description, whose name ends with a zero byte if there is
    // one, and with what `loaded` has handed over.
    unsafe {
        let name = (*info).dlpi_name;
        if !name.is_null() && *name != 0 {
            (*paths.cast::<Vec<CString>>()).push(CStr::from_ptr(name).to_owned());
        }
    }
    0
}

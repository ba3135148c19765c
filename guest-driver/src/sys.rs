// SPDX-License-Identifier: GPL-2.0

//! Generated bindings to what `kernel::bindings` lacks, and to the C shims.
//!
//! Only `kapi` may use this module; it wraps what it takes from here.

#![allow(
    dead_code,
    clippy::all,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unused_imports,
    unsafe_op_in_unsafe_fn
)]

use kernel::bindings::*;
use pin_init::MaybeZeroable;

include!(concat!(env!("COAX_OBJ"), "/src/sys/bindings.rs"));

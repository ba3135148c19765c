// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when the library is loaded, before the program begins.
// UNSAFETY: the loader is given a function to call, and the C library handlers.
#![expect(unsafe_code)]

use crate::counters;
use crate::cpu::{Lp64, OnCpu};
use crate::report;
use crate::session;
use crate::settings::{settings, Report};
use crate::why;

/// Called by the loader; programs of tests have no CPU's BLAS behind them.
#[cfg(not(test))]
#[used]
#[link_section = ".init_array"]
static ON_LOAD: extern "C" fn() = on_load;

/// What may be waited for is done now, while there is one thread: a child of `fork` could wait for ever
/// for a thread of its parent to be done with it.
#[cfg_attr(test, expect(dead_code, reason = "it is for the loader"))]
extern "C" fn on_load() {
    // The names of other libraries are looked up when they are called: those may come later.
    <f32 as OnCpu<Lp64>>::cpu();
    <f32 as OnCpu<Lp64>>::vectors();
    <f64 as OnCpu<Lp64>>::cpu();
    <f64 as OnCpu<Lp64>>::vectors();
    let settings = settings();
    let reports = settings.report != Report::None || settings.why != Report::None;
    // SAFETY: The handlers are functions of this library, which the C library forgets when it is
    // unloaded. Without room for them a child cannot use the device, and there is no report.
    unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
        if reports {
            libc::atexit(report::report);
        }
    }
}

unsafe extern "C" fn in_child() {
    session::forget_in_child();
    counters::reset();
    why::forget_in_child();
}

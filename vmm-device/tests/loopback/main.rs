// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drives the device through vhost-user from within one process: no VM, no root.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic with a stack trace"
)]

mod atomics;
mod commands;
mod contexts;
mod copies;
mod fail_stop;
mod faults;
mod front_end;
mod gemm;
mod invalidations;
mod lifecycle;
mod malformed;
mod messages;
mod migrations;
mod notifications;
mod requests;
mod setup;
mod vring;
mod windows;

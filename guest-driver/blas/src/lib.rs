// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A BLAS that sends large matrix operations to the coax accelerator and hands on the rest.
//!
//! It is loaded in the place of `libblas.so.3` by programs that were never made for it; `README.md` says
//! how. This library has the functions that are worth it, [`boundary::fortran`] and [`boundary::cblas`]; all
//! other symbols come from the CPU's BLAS, which it needs under a name of its own.
//!
//! # The way of a call
//!
//! ```text
//! boundary    C's arguments, checked once, become views of matrices, or go to the CPU's BLAS as they came
//!    |
//!   way ----- decision   who does it, and why: a value, made from the call (operation, cost, footprint), from what
//!    |                   is known of both sides (known: measure, rates, knowledge), and from where pages are
//!    |
//!    +------- level3     the operation, made of products on a device (session), the rest on the CPU (cpu)
//!    |
//!    +------- counters   what became of it: report tells at the end of the process, why of each call
//! ```
//!
//! Each file uses those below it, and none above.
//!
//! # Unsafe code
//!
//! A matrix that may be accessed is a `view`: that type has the program's promise. Only these files have
//! unsafe code, each for one thing: `boundary/*` (C calls, and raw pointers become views), `view` (elements are
//! accessed), `scratch` (memory of the library's own), `cpu` (the CPU's BLAS is called), `session` (commands for
//! the device, and who holds it), `load`, `message`, `settings` (the C library). All others forbid it.

pub mod boundary;
mod cost;
mod counters;
mod cpu;
mod decision;
mod device;
mod footprint;
mod knowledge;
mod known;
mod level3;
mod load;
mod matrix;
mod measure;
mod message;
mod model;
mod operation;
mod outcome;
mod rates;
mod real;
#[cfg(test)]
mod reference;
mod report;
mod routine;
mod scratch;
mod session;
mod settings;
mod view;
mod way;
mod why;

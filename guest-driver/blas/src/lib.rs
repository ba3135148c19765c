// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A BLAS that sends large matrix operations to the coax accelerator and hands on the rest.
//!
//! It is loaded in the place of `libblas.so.3` by programs that were never made for it; `README.md` says
//! how. This library has the functions that are worth it, [`fortran`] and [`cblas`]; all
//! other symbols come from the CPU's BLAS, which it needs under a name of its own.

mod call;
pub mod cblas;
mod cost;
mod cpu;
mod device;
mod footprint;
pub mod fortran;
mod level3;
mod load;
mod matrix;
mod measure;
mod message;
mod model;
mod outcome;
mod rates;
mod real;
mod scratch;
mod session;
mod settings;
mod stats;
mod vectors;

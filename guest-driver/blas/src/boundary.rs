// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where programs call. Raw pointers are checked here, once, and become views of matrices; what is not in
//! order goes to the CPU's BLAS as it came.

mod arguments;
pub mod cblas;
pub mod fortran;
mod vectors;

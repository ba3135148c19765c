// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions that may go to the device, by name, operation and precision.
#![forbid(unsafe_code)]

/// A function that calls are counted of, under any of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    Sgemm,
    Ssyrk,
    Ssymm,
    Strsm,
    Sgemv,
    Sdot,
    Dgemm,
    Dsyrk,
    Dsymm,
    Dtrsm,
    Dgemv,
    Ddot,
}

/// An operation of level 3, of either precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gemm,
    Syrk,
    Symm,
    Trsm,
}

/// A precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Single,
    Double,
}

impl Routine {
    /// Routines that there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in the order of their numbers.
    pub const ALL: [Routine; 12] = [
        Routine::Sgemm,
        Routine::Ssyrk,
        Routine::Ssymm,
        Routine::Strsm,
        Routine::Sgemv,
        Routine::Sdot,
        Routine::Dgemm,
        Routine::Dsyrk,
        Routine::Dsymm,
        Routine::Dtrsm,
        Routine::Dgemv,
        Routine::Ddot,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Routine::Sgemm => "sgemm",
            Routine::Ssyrk => "ssyrk",
            Routine::Ssymm => "ssymm",
            Routine::Strsm => "strsm",
            Routine::Sgemv => "sgemv",
            Routine::Sdot => "sdot",
            Routine::Dgemm => "dgemm",
            Routine::Dsyrk => "dsyrk",
            Routine::Dsymm => "dsymm",
            Routine::Dtrsm => "dtrsm",
            Routine::Dgemv => "dgemv",
            Routine::Ddot => "ddot",
        }
    }

    /// What it does, if that is of level 3.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Routine::Sgemm | Routine::Dgemm => Some(Kind::Gemm),
            Routine::Ssyrk | Routine::Dsyrk => Some(Kind::Syrk),
            Routine::Ssymm | Routine::Dsymm => Some(Kind::Symm),
            Routine::Strsm | Routine::Dtrsm => Some(Kind::Trsm),
            _ => None,
        }
    }

    /// What on.
    pub fn precision(self) -> Precision {
        match self {
            Routine::Sgemm | Routine::Ssyrk | Routine::Ssymm | Routine::Strsm => Precision::Single,
            Routine::Sgemv | Routine::Sdot => Precision::Single,
            _ => Precision::Double,
        }
    }
}

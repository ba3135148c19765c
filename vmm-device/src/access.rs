// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Access rights as the wire has them, and what lacks them.
#![forbid(unsafe_code)]

use coax_abi::wire::{ACCESS_ATOMIC, ACCESS_READ, ACCESS_WRITE};

/// A set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Reading.
    pub const READ: Self = Self(ACCESS_READ as u8);
    /// Writing.
    pub const WRITE: Self = Self(ACCESS_WRITE as u8);
    /// Atomic operations, reading and writing.
    pub const ATOMIC: Self = Self((ACCESS_ATOMIC | ACCESS_READ | ACCESS_WRITE) as u8);

    /// The rights among these bits; others are ignored.
    pub fn from_bits(bits: u64) -> Self {
        Self((bits & u64::from(Self::ATOMIC.0)) as u8)
    }

    /// `ACCESS_*` bits.
    pub fn bits(self) -> u64 {
        u64::from(self.0)
    }

    /// `ACCESS_*` bits as the wire has them.
    pub fn wire(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether all of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is one that can be granted: atomic operations come with both other
    /// rights.
    pub fn is_sound(self) -> bool {
        u32::from(self.0) & ACCESS_ATOMIC == 0 || self.contains(Self::ATOMIC)
    }

    /// Whether nothing is granted.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A translation that an operation lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// First byte that cannot be accessed.
    pub va: u64,
    /// Bytes from `va` on that the operation is going to access in any case.
    pub bytes: u64,
    /// Right needed.
    pub access: Access,
    /// Accesses near `va` are likely although not certain.
    pub around: bool,
}

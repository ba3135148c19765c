// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory that operations work on.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, VolatileSlice};

use crate::access::Access;

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No translation with the right needed for this address.
    Miss(u64),
    /// The translation of this address names no memory.
    BadGpa(u64),
}

/// Source and destination of the same length.
pub type Pair<'m> = (VolatileSlice<'m>, VolatileSlice<'m>);

/// What stops an access to source and destination, one of the two at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairStop {
    /// Obstacle to reading.
    pub src: Option<Stop>,
    /// Obstacle to writing.
    pub dst: Option<Stop>,
}

/// Memory addressed by the virtual addresses of a context.
pub trait DmaMemory<'m> {
    /// The bytes from `va` on that can be accessed in one piece: at least 1, at most `len`.
    ///
    /// `len` must not be 0 and `va + len` must not wrap around.
    fn piece(&mut self, va: u64, len: u64, access: Access) -> Result<VolatileSlice<'m>, Stop>;

    /// The bytes from `src` on to read and those from `dst` on to write, as many of either as
    /// can be accessed in one piece: at least 1, at most `len`. Otherwise says what stops
    /// each of the two.
    ///
    /// `len` must not be 0, and neither range may wrap around.
    fn pair(&mut self, src: u64, dst: u64, len: u64) -> Result<Pair<'m>, PairStop>;

    /// Whether somebody waits for the step to end: it ends with `Step::More` once something was
    /// gained. To be asked after each bounded piece of work.
    fn interrupted(&self) -> bool {
        false
    }

    /// Reads a little-endian integer, which may cross a page border.
    fn read_u64(&mut self, va: u64) -> Result<u64, Stop> {
        let piece = self.piece(va, 8, Access::READ)?;
        if piece.len() == 8 {
            if let Ok(value) = piece.load::<u64>(0, Ordering::Relaxed) {
                return Ok(u64::from_le(value));
            }
        }
        let mut bytes = [0; 8];
        let first = piece.copy_to(&mut bytes[..]);
        let mut done = first;
        while done < bytes.len() {
            let rest = bytes.len() - done;
            let piece = self.piece(va + done as u64, rest as u64, Access::READ)?;
            done += piece.copy_to(&mut bytes[done..]);
        }
        Ok(u64::from_le_bytes(bytes))
    }
}

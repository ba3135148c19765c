// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Atomic operations of the device on words that the CPU may use at the same time.
// UNSAFETY: these functions turn borrows into the addresses that a command carries; every
// block says why the borrow covers what the device does.
#![expect(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::command::Command;
use crate::context::Context;
use crate::error::Error;

/// Address of a word that others may use atomically while it is borrowed.
fn shared<T>(word: &T) -> u64 {
    std::ptr::from_ref(word).expose_provenance() as u64
}

/// Atomic operations. They are sequentially consistent, and atomic towards CPUs in any process
/// that maps the word, towards other commands and other contexts.
///
/// All calls give [`Error::Command`] if the device could not do the command and
/// [`Error::Call`] if the driver did not take it.
impl Context {
    /// Adds to a word, wrapping around, and returns its value before.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn fetch_add_u64(&self, word: &AtomicU64, addend: u64) -> Result<u64, Error> {
        self.update(Command::fetch_add(shared(word), 8, addend, 1, 0))
    }

    /// As [`Context::fetch_add_u64`] for 32 bits.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn fetch_add_u32(&self, word: &AtomicU32, addend: u32) -> Result<u32, Error> {
        self.update(Command::fetch_add(shared(word), 4, addend.into(), 1, 0))
            .map(low)
    }

    /// Gives a word the value `desired` if it has the value `expected`; returns its value
    /// before, which tells whether it did.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn compare_swap_u64(
        &self,
        word: &AtomicU64,
        expected: u64,
        desired: u64,
    ) -> Result<u64, Error> {
        self.update(Command::compare_swap(shared(word), 8, expected, desired))
    }

    /// As [`Context::compare_swap_u64`] for 32 bits.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn compare_swap_u32(
        &self,
        word: &AtomicU32,
        expected: u32,
        desired: u32,
    ) -> Result<u32, Error> {
        let (expected, desired) = (expected.into(), desired.into());
        self.update(Command::compare_swap(shared(word), 4, expected, desired))
            .map(low)
    }

    /// Runs a command on one word, which the caller has borrowed; returns its value before.
    fn update(&self, command: Command) -> Result<u64, Error> {
        // SAFETY: The device changes the one word, borrowed until it is done, and does so
        // atomically, which whoever shares an atomic integer has to expect.
        Ok(unsafe { self.run(command) }?.word(0))
    }
}

/// The value of a word of 32 bits, which comes back as one of 64.
fn low(word: u64) -> u32 {
    word as u32
}

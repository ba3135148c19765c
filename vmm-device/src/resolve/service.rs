// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who translates for the device.
//!
//! A service sends requests, and hands what comes back to the machine: [`Machine::answered`] for
//! each request once, [`Machine::fill`] for translations that nobody asked for, and
//! [`Machine::invalidate`], in the order in which they came. Whether a request is one message or
//! several is its own affair. What delays, drops or forges messages is a service around another.
//!
//! [`Machine::answered`]: crate::machine::Machine::answered
//! [`Machine::fill`]: crate::machine::Machine::fill
//! [`Machine::invalidate`]: crate::machine::Machine::invalidate
#![forbid(unsafe_code)]

use super::Request;

/// Sends requests for translations, or to have pages made.
pub trait TranslationService: Send + Sync + std::fmt::Debug {
    /// Sends a request; false if there is no room at present. [`Machine::send`] is to be called
    /// when there is room again.
    ///
    /// [`Machine::send`]: crate::machine::Machine::send
    fn request(&self, request: &Request) -> bool;

    /// Tells the other side of the requests sent since the last time.
    fn flush(&self);

    /// Changes when what was sent before is lost and will not be answered.
    fn life(&self) -> u64;
}

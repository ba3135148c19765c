// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device does otherwise than the specification says, for tests of drivers. The program has none.
#![forbid(unsafe_code)]

use coax_abi::wire::DeviceRequest;

/// Changes to what the device sends, made last of all.
#[derive(Clone, Copy, Debug)]
pub struct Deviations {
    /// Changes a request of the request queue; returns how many of its bytes go.
    pub request: fn(&mut DeviceRequest) -> usize,
    /// Changes the answer to a message of the queue of this number: control, copy or translation.
    pub answer: fn(queue: u16, message: &[u8], answer: &mut Vec<u8>),
}

impl Default for Deviations {
    fn default() -> Self {
        Self {
            request: |_| size_of::<DeviceRequest>(),
            answer: |_, _, _| {},
        }
    }
}

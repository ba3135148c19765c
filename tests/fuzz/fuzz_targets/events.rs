// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Events in any order, played to the device's commands and requests.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../vmm-device/tests/sequences/driver.rs"]
mod driver;

fuzz_target!(|bytes: &[u8]| driver::play(bytes));

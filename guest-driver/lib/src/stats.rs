// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters of a context, of the driver and of the device, with their names.
#![forbid(unsafe_code)]

use std::ops::Deref;

use coax_abi::{uapi, wire};

/// Counters of the device itself.
pub type Device = wire::DeviceStats;

/// All counters at one moment. Those of context and driver are fields (it dereferences to
/// [`uapi::Stats`]), those of the device come from [`Stats::device`].
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    raw: uapi::Stats,
    device: Device,
}

impl Deref for Stats {
    type Target = uapi::Stats;

    fn deref(&self) -> &uapi::Stats {
        &self.raw
    }
}

/// Pairs each named field with its value.
macro_rules! named {
    ($from:expr, $get:expr; $($field:ident)*) => {
        [$((stringify!($field), $get($from.$field))),*]
    };
}

impl Stats {
    pub(crate) fn new(raw: uapi::Stats) -> Self {
        // The driver stores the device's little-endian words as integers of the machine.
        let device = zerocopy::transmute!(raw.device.map(u64::to_le));
        Self { raw, device }
    }

    /// Counters of the device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Counters of the context and the driver by name, in the order of the contract.
    pub fn driver_counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named!(self.raw, std::convert::identity;
            context_page_requests context_to_device context_commands context_invalidations
            contexts page_requests translation_requests responses_success responses_invalid
            responses_failure invalidations to_device_fault to_device_request to_system_fault
            to_system_request to_system_evict device_full device_errors first_migration_ns)
        .into_iter()
    }

    /// Counters of the device by name, in the order of the contract.
    pub fn device_counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named!(self.device, u64::from;
            commands commands_failed commands_parked translation_requests page_requests
            responses_success responses_invalid responses_failure invalidations atc_hits
            atc_misses atc_evictions system_bytes device_bytes copied_bytes guest_errors
            fault_median_ns requests_deferred engine_ns)
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_and_its_own_value() {
        // Each word holds its index, so a field left out or swapped shows.
        let words: [u64; 38] = std::array::from_fn(|index| index as u64);
        let stats = Stats::new(zerocopy::transmute!(words));
        let values: Vec<u64> = stats
            .driver_counters()
            .chain(stats.device_counters())
            .map(|(_, v)| v)
            .collect();
        assert_eq!(values, words);
    }
}

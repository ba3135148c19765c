// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the device is sooner done with a call than the CPU, by what both have taken on this machine.
//!
//! That depends on the machine alone: on one the CPU is emulated and fifty times slower than the device,
//! on another it is as fast and pages only cost.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Operations that a process must have asked for before anything is measured: twenty times as many as
/// take the CPU as long as the measurement.
pub const MEASURED_FLOPS: f64 = 128e6;
/// Operations below which a call goes to the CPU without a look. The matrices of a product of 128 × 128 and
/// less lie in the heap, whose pages this library and the program use meanwhile, so that they go back
/// and forth: one of 101 × 101 took up to a quarter longer than on the CPU, however it was counted.
pub const LEAST_FLOPS: f64 = 4e6;
/// What the device must take at most, of the CPU's time: neither is the same twice.
const MARGIN: f64 = 0.5;
/// How much longer a call may take with the device, of its time on the CPU, if all its pages come back
/// afterwards nevertheless.
const REGRET: f64 = 0.1;

/// What a call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Operations that the CPU would do.
    pub flops: f64,
    /// Operations that the device does instead.
    pub device_flops: f64,
    /// Operations that are left to the CPU.
    pub rest_flops: f64,
    /// Pages that the device goes over.
    pub touched: f64,
    /// Pages that go to the device and come back, as often as they do.
    pub pages: f64,
    /// Commands.
    pub commands: f64,
}

/// Times of the device in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// An operation of the device, on memory that it has.
    pub device_flop: f64,
    /// Going over a page that the device has, with next to nothing to do on it.
    pub touch: f64,
    /// Moving a page to the device and back.
    pub page: f64,
    /// Its way back alone, when the CPU touches it.
    pub back: f64,
    /// A command that does nothing.
    pub command: f64,
}

impl Model {
    /// A device that is worth nothing.
    pub const USELESS: Self = Self {
        device_flop: f64::INFINITY,
        touch: f64::INFINITY,
        page: f64::INFINITY,
        back: f64::INFINITY,
        command: f64::INFINITY,
    };

    /// Seconds of a call with the device, beside a CPU that takes `cpu_flop` seconds for an operation.
    pub fn seconds(&self, cost: &Cost, cpu_flop: f64) -> f64 {
        cost.device_flops * self.device_flop
            + cost.rest_flops * cpu_flop
            + cost.touched * self.touch
            + cost.pages * self.page
            + cost.commands * self.command
    }

    /// Whether the device is sooner done than the CPU.
    pub fn is_worth(&self, cost: &Cost, cpu_flop: f64) -> bool {
        self.seconds(cost, cpu_flop) < MARGIN * cost.flops * cpu_flop
    }

    /// Whether the device is sooner done than the CPU with a call of which `there` pages would have to come
    /// back to the CPU: and not much later in all, should they come back after all.
    pub fn is_worth_there(&self, cost: &Cost, cpu_flop: f64, there: f64) -> bool {
        let cpu = cost.flops * cpu_flop;
        let with_way = cpu + there * self.back;
        let device = self.seconds(cost, cpu_flop);
        device < MARGIN * with_way && device < cpu + REGRET * with_way
    }

    /// The same device when all takes `times` as long.
    pub fn slower(&self, times: f64) -> Self {
        Self {
            device_flop: self.device_flop * times,
            touch: self.touch * times,
            page: self.page * times,
            back: self.back,
            command: self.command * times,
        }
    }
}

/// Times of both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// The device's.
    pub model: Model,
    /// The CPU's for an operation of the routine.
    pub cpu_flop: f64,
    /// How much longer than measured the device takes of late.
    pub delay: f64,
}

/// How much longer than expected the device takes in practice: at least as long. Calls that were
/// offloaded teach it; other work of the machine's shows in it, and what no measurement knows.
#[derive(Debug)]
pub struct Delay(AtomicU64);

impl Delay {
    /// Share of the newest call.
    const NEWEST: f64 = 0.25;
    /// Part of the excess that goes with each call that was not made: a try is made after ten or so.
    const FORGOTTEN: f64 = 0.1;
    /// Most that a single call teaches.
    const MOST: f64 = 16.0;

    /// As expected.
    pub const fn new() -> Self {
        Self(AtomicU64::new(1f64.to_bits()))
    }

    /// The factor.
    pub fn factor(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    /// Notes a call that was not offloaded because of this alone: nobody learns from those, and what was
    /// slow for a moment would be slow for ever.
    pub fn forget(&self) {
        let factor = 1.0 + (self.factor() - 1.0) * (1.0 - Self::FORGOTTEN);
        self.0.store(factor.to_bits(), Relaxed);
    }

    /// Notes a call that took `seconds`. What was expected includes the pages' way back, which comes
    /// after the call; so one that takes as long as expected is slow already.
    pub fn learn(&self, expected: f64, seconds: f64) {
        let times = (seconds / expected).clamp(1.0, Self::MOST);
        if times.is_finite() {
            let factor = self.factor() * (1.0 - Self::NEWEST) + times * Self::NEWEST;
            // Of two threads' lessons one may be lost.
            self.0.store(factor.to_bits(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An emulated CPU, and a device at 20 Gflop/s.
    const CPU: f64 = 1e-8;
    const DEVICE: Model = Model {
        device_flop: 5e-11,
        touch: 3e-6,
        page: 200e-6,
        back: 50e-6,
        command: 100e-6,
    };

    fn product(n: f64) -> Cost {
        let pages = 3.0 * 8.0 * n * n / 4096.0;
        Cost {
            flops: 2.0 * n * n * n,
            device_flops: 2.0 * n * n * n,
            rest_flops: 0.0,
            touched: pages,
            pages,
            commands: 2.0,
        }
    }

    #[test]
    fn large_products_are_worth_it_and_small_ones_are_not() {
        assert!(DEVICE.is_worth(&product(512.0), CPU));
        assert!(!DEVICE.is_worth(&product(64.0), CPU));
    }

    #[test]
    fn pages_decide_where_there_is_little_to_do_on_each() {
        // As many operations as a product of 512³, on matrices that take a hundred times the memory.
        let flat = Cost {
            pages: 100.0 * product(512.0).pages,
            ..product(512.0)
        };
        assert!(!DEVICE.is_worth(&flat, CPU));
    }

    #[test]
    fn pages_that_are_there_cost_what_going_over_them_does() {
        // A matrix times a vector: two operations for each of 512 numbers of a page.
        let vector = |pages: f64| Cost {
            flops: 1024.0 * pages,
            device_flops: 1024.0 * pages,
            touched: pages,
            commands: 1.0,
            ..Cost::default()
        };
        assert!(DEVICE.is_worth(&vector(8192.0), CPU));
        assert!(!DEVICE.is_worth(&vector(8192.0), CPU / 4.0));
        // The CPU would have to fetch them first.
        assert!(DEVICE.is_worth_there(&vector(8192.0), CPU / 4.0, 8192.0));
        assert!(!DEVICE.is_worth_there(&vector(8192.0), CPU / 4.0, 0.0));
        // But not at any price: they may come back all the same.
        let slow = Model {
            touch: 20e-6,
            ..DEVICE
        };
        assert!(!slow.is_worth_there(&vector(8192.0), CPU / 4.0, 8192.0));
    }

    #[test]
    fn calls_that_take_longer_than_expected_are_remembered_for_a_while() {
        let delay = Delay::new();
        delay.learn(1.0, 0.5);
        assert_eq!(delay.factor(), 1.0);
        for _ in 0..20 {
            delay.learn(1.0, 4.0);
        }
        assert!((3.5..=4.0).contains(&delay.factor()));
        let near = product(256.0);
        assert!(DEVICE.is_worth(&near, CPU));
        assert!(!DEVICE.slower(delay.factor()).is_worth(&near, CPU));
        for _ in 0..20 {
            delay.learn(1.0, 1.0);
        }
        assert!(delay.factor() < 1.1);
        delay.learn(1.0, 5.0);
        for _ in 0..20 {
            delay.forget();
        }
        assert!(delay.factor() < 1.2);
    }

    #[test]
    fn device_that_could_not_be_measured_is_worth_nothing() {
        assert!(!Model::USELESS.is_worth(&product(4096.0), CPU));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of a device, as long as it is the process's.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::OnceLock;

use crate::model::{Delay, Model, MEASURED_FLOPS};
use crate::routine::Precision;

/// Times of a device, and what calls have asked for before they were measured.
#[derive(Debug)]
pub struct Knowledge {
    /// How much longer than measured calls of both precisions take.
    pub delay: Delay,
    single: OnceLock<Model>,
    double: OnceLock<Model>,
    asked: AtomicU64,
}

impl Knowledge {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            delay: Delay::new(),
            single: OnceLock::new(),
            double: OnceLock::new(),
            asked: AtomicU64::new(0),
        }
    }

    fn cell(&self, precision: Precision) -> &OnceLock<Model> {
        match precision {
            Precision::Single => &self.single,
            Precision::Double => &self.double,
        }
    }

    /// The device's times, if they were measured.
    pub fn model(&self, precision: Precision) -> Option<Model> {
        self.cell(precision).get().copied()
    }

    /// Counts a call's operations; whether enough were asked for, these included, to measure the device.
    pub fn is_worth_measuring(&self, precision: Precision, flops: f64) -> bool {
        if self.cell(precision).get().is_some() {
            return true;
        }
        let asked = self.asked.fetch_add(flops as u64, Relaxed) as f64 + flops;
        asked >= MEASURED_FLOPS
    }

    /// The device's times, which the first to ask measures while others wait.
    pub fn model_or_measure(&self, precision: Precision, measure: impl FnOnce() -> Model) -> Model {
        *self.cell(precision).get_or_init(measure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_is_measured_once_and_after_enough_operations_of_either_precision() {
        let knowledge = Knowledge::new();
        let half = MEASURED_FLOPS / 2.0;
        assert!(!knowledge.is_worth_measuring(Precision::Single, half));
        assert!(knowledge.is_worth_measuring(Precision::Double, half));
        assert_eq!(knowledge.model(Precision::Double), None);
        let measured = Model {
            command: 1.0,
            ..Model::USELESS
        };
        let first = knowledge.model_or_measure(Precision::Double, || measured);
        let second = knowledge.model_or_measure(Precision::Double, || Model::USELESS);
        assert_eq!((first, second), (measured, measured));
        assert_eq!(knowledge.model(Precision::Double), Some(measured));
        assert_eq!(knowledge.model(Precision::Single), None);
    }
}

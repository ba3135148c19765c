// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast the CPU's BLAS is, routine by routine: what its calls took when they were fastest.
//!
//! Routines differ by a factor of ten where the CPU is emulated, and calls of one routine by two with
//! their shapes. The fastest one counts: a call is sent to the device only if that beats the CPU's best.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::routine::Routine;

/// Bits of the seconds of an operation, by routine; 0 if nothing is known.
static FASTEST: [AtomicU64; Routine::COUNT] = [const { AtomicU64::new(0) }; Routine::COUNT];

/// Notes a call of the CPU.
pub fn observe(routine: Routine, flops: f64, seconds: f64) {
    let flop = seconds / flops;
    if !(flop > 0.0 && flop.is_finite()) {
        return;
    }
    // Positive numbers have the order of their bits.
    let bits = flop.to_bits();
    let _ = FASTEST[routine as usize].fetch_update(Relaxed, Relaxed, |known| {
        (known == 0 || bits < known).then_some(bits)
    });
}

/// Seconds of an operation of the CPU, if any call was seen.
pub fn fastest(routine: Routine) -> Option<f64> {
    match FASTEST[routine as usize].load(Relaxed) {
        0 => None,
        bits => Some(f64::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_call_counts_for_its_routine_alone() {
        assert_eq!(fastest(Routine::Ssymm), None);
        observe(Routine::Ssymm, 100.0, 200.0);
        observe(Routine::Ssymm, 100.0, 50.0);
        observe(Routine::Ssymm, 100.0, 100.0);
        observe(Routine::Ssymm, 0.0, 1.0);
        assert_eq!(fastest(Routine::Ssymm), Some(0.5));
        assert_eq!(fastest(Routine::Dsymm), None);
    }
}

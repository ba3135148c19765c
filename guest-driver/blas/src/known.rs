// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of both sides by the time of a call, measured where it is not.
#![forbid(unsafe_code)]

use crate::cpu::Cpu;
use crate::device::Device;
use crate::knowledge::Knowledge;
use crate::measure;
use crate::model::{Known, MEASURED_FLOPS};
use crate::rates;
use crate::real::Real;
use crate::routine::Routine;

/// What is known at a call of so many operations. The device is measured once calls of enough
/// operations, this one's included, have come; the CPU's calls are seen as they come, and only before
/// a call that is large by itself one is made to be seen. `None` before that.
pub fn at<T: Real>(
    device: &impl Device,
    knowledge: &Knowledge,
    cpu: &dyn Cpu<T>,
    routine: Routine,
    flops: f64,
) -> Option<Known> {
    let precision = routine.precision();
    if !knowledge.is_worth_measuring(precision, flops) {
        return None;
    }
    let cpu_flop = rates::fastest(routine).or_else(|| {
        let kind = routine.kind().filter(|_| flops >= MEASURED_FLOPS)?;
        let flop = measure::cpu(kind, cpu)?;
        rates::observe(routine, 1.0, flop);
        Some(flop)
    })?;
    let model = knowledge.model_or_measure(precision, || measure::device::<T, _>(device));
    let delay = knowledge.delay.factor();
    Some(Known {
        model,
        cpu_flop,
        delay,
    })
}

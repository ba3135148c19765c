// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The way of a call: from the boundary to a decision, to the device or the CPU, to what became of it.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::counters;
use crate::cpu::{Cpu, Family, OnCpu};
use crate::decision::{self, Decision, Estimate, Rule};
use crate::device::Device;
use crate::known;
use crate::level3::Offload;
use crate::model::LEAST_FLOPS;
use crate::operation::{Call, Size};
use crate::outcome::{Outcome, Reason};
use crate::rates;
use crate::real::Real;
use crate::routine::Routine;
use crate::session;
use crate::settings::settings;
use crate::why;

/// A call that is the CPU's by its arguments alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// Its size, unless that is wrong.
    pub size: Option<Size>,
}

impl Refused {
    /// An argument is wrong.
    pub const WRONG: Self = Self {
        reason: Reason::Arguments,
        size: None,
    };
}

/// What became of a call, or why it is still to be done by the CPU.
type Tried = Result<(Outcome, f64), Reason>;

/// Lets the device or the CPU do a call, counts it, and tells of it. `hand_on` gives it to the CPU's BLAS as it
/// came.
pub fn run<F: Family, T: OnCpu<F>>(
    routine: Routine,
    call: Result<Call<'_, T>, Refused>,
    hand_on: impl FnOnce(),
) {
    let (size, tried, estimate) = match call {
        Ok(call) => {
            let size = call.size();
            let (tried, estimate) = offload(routine, size.flops(), <T as OnCpu<F>>::cpu(), call);
            (Some(size), tried, estimate)
        }
        Err(Refused { reason, size }) => (size, Err(reason), None),
    };
    why::tell(routine, size, &tried, estimate.as_ref());
    match tried {
        Ok((outcome, seconds)) => return counters::offloaded(routine, &outcome, seconds),
        Err(reason) => counters::on_cpu(routine, reason),
    }
    let flops = size.map_or(0.0, |size| size.flops());
    if flops < LEAST_FLOPS {
        return hand_on();
    }
    let begin = Instant::now();
    hand_on();
    rates::observe(routine, flops, begin.elapsed().as_secs_f64());
}

/// Does the call with the device, or says why not and touches nothing; with how it was judged, if it was.
fn offload<T: Real>(
    routine: Routine,
    flops: f64,
    cpu: &dyn Cpu<T>,
    call: Call<'_, T>,
) -> (Tried, Option<Estimate>) {
    let done = session::with(|session| {
        let knowledge = &session.knowledge;
        let rule = match settings().least_flops {
            Some(_) => Rule::Threshold,
            None => Rule::Measured(known::at(session, knowledge, cpu, routine, flops)),
        };
        let decision = decision::decide(&call, rule, |spots| session.find(spots));
        let (fetch, estimate) = match decision {
            Decision::Device { fetch, estimate } => (fetch, estimate),
            Decision::Cpu { reason, estimate } => {
                if estimate.is_some_and(|estimate| estimate.delayed) {
                    knowledge.delay.forget();
                }
                return (Err(reason), estimate);
            }
        };
        let begin = Instant::now();
        if fetch {
            session.fetch(&call.fetched().ranges);
        }
        let mut offload = Offload::new(session, cpu, &session.pool);
        offload.call(call);
        let seconds = begin.elapsed().as_secs_f64();
        if let Some(estimate) = &estimate {
            knowledge.delay.learn(estimate.device, seconds);
        }
        (Ok((offload.outcome, seconds)), estimate)
    });
    done.unwrap_or((Err(Reason::Absent), None))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who does a call, and why: from the call, what is known of both sides, and where its pages are.
//!
//! Nothing here touches a matrix or the device. Where pages are is asked for only where it matters.
#![forbid(unsafe_code)]

use coax::PageRange;

use crate::footprint::Found;
use crate::model::{Known, LEAST_FLOPS};
use crate::operation::Call;
use crate::outcome::Reason;
use crate::real::Real;

/// What calls are judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// All calls of enough operations go to the device.
    Threshold,
    /// Calls go where they are sooner done, by what is known; by nothing yet they are the CPU's.
    Measured(Option<Known>),
}

/// Who does a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// The device.
    Device {
        /// Pages have to move, or may have to.
        fetch: bool,
        /// Where the call was judged by measurement.
        estimate: Option<Estimate>,
    },
    /// The CPU.
    Cpu {
        /// Why.
        reason: Reason,
        /// Where the call was judged by measurement.
        estimate: Option<Estimate>,
    },
}

/// A call as it was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds with the device, by measurement, the pages' way back included.
    pub device: f64,
    /// How much longer the device takes of late.
    pub delay: f64,
    /// Seconds of the CPU's operations.
    pub cpu: f64,
    /// Pages that the device goes over.
    pub pages: f64,
    /// Those of them that have to move.
    pub moving: f64,
    /// Those that would have to come back to the CPU first.
    pub away: f64,
    /// Where the pages are.
    pub pages_known: PagesKnown,
    /// The device would have been sooner done but for its delay.
    pub delayed: bool,
}

/// What was found out of where the pages of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagesKnown {
    /// Nothing: it is worth it with all of them having to move.
    NeedNot,
    /// Nothing: it is not worth it wherever they are.
    NoUse,
    /// The device was asked for some of them.
    Asked,
}

/// The reason for which a call of so many operations is the CPU's without a look.
pub fn by_size(flops: f64, least: Option<f64>) -> Option<Reason> {
    // A call of no operations is the CPU's in any case.
    (flops <= 0.0 || flops < least.unwrap_or(LEAST_FLOPS)).then_some(Reason::Small)
}

/// Decides who does a call that is large enough. `find` tells where pages of the program are.
pub fn decide<T: Real>(
    call: &Call<'_, T>,
    rule: Rule,
    find: impl FnOnce(&[PageRange]) -> Found,
) -> Decision {
    let known = match rule {
        Rule::Threshold => {
            return Decision::Device {
                fetch: true,
                estimate: None,
            }
        }
        Rule::Measured(None) => {
            return Decision::Cpu {
                reason: Reason::Small,
                estimate: None,
            }
        }
        Rule::Measured(Some(known)) => known,
    };
    let Known {
        model,
        cpu_flop,
        delay,
    } = known;
    let footprint = call.footprint();
    let pages = footprint.pages();
    let (mut cost, mut away) = (call.cost(pages, pages), 0.0);
    let mut moving = pages;
    let mut pages_known = PagesKnown::NeedNot;
    let mut worth = model.is_worth(&cost, cpu_flop);
    if !worth {
        // Not if all pages have to move, but they may be where the device has them already.
        let near = pages - footprint.spread;
        let in_place = call.cost(pages, footprint.spread);
        pages_known = PagesKnown::NoUse;
        if model.is_worth_there(&in_place, cpu_flop, near) {
            let spots = footprint.spots();
            let found = find(&spots);
            let all = near / spots.len().max(1) as f64;
            pages_known = PagesKnown::Asked;
            away = all * found.to_come_back;
            moving = pages - all * found.in_place;
            cost = call.cost(pages, moving);
            worth = model.is_worth_there(&cost, cpu_flop, away);
        }
    }
    let in_time = worth && model.slower(delay).is_worth_there(&cost, cpu_flop, away);
    let estimate = Some(Estimate {
        device: model.seconds(&cost, cpu_flop),
        delay,
        cpu: cost.flops * cpu_flop,
        pages,
        moving,
        away,
        pages_known,
        delayed: worth && !in_time,
    });
    if in_time {
        let fetch = cost.pages > 0.0;
        Decision::Device { fetch, estimate }
    } else {
        Decision::Cpu {
            reason: Reason::Slower,
            estimate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::operation::{Operand, Product};
    use crate::view::{View, ViewMut};

    /// A CPU at 0.1 Gflop/s, as an emulated one is, and a device at 20.
    const KNOWN: Known = Known {
        model: Model {
            device_flop: 5e-11,
            touch: 3e-6,
            page: 200e-6,
            back: 50e-6,
            command: 100e-6,
        },
        cpu_flop: 1e-8,
        delay: 1.0,
    };

    /// Decides of a product of m×k and k×n, of whose pages the given share is with the device and comes back.
    fn product(
        (m, n, k): (usize, usize, usize),
        rule: Rule,
        (in_place, to_come_back): (f64, f64),
    ) -> (Decision, bool) {
        let (a, b, mut c) = (vec![0.0; m * k], vec![0.0; k * n], vec![0.0; m * n]);
        let call = Call::Gemm(Product {
            alpha: 1.0,
            a: Operand::plain(View::of(&a, (m, k), m)),
            b: Operand::plain(View::of(&b, (k, n), k)),
            beta: 0.0,
            c: ViewMut::of(&mut c, (m, n), m),
        });
        let mut asked = false;
        let decision = decide(&call, rule, |spots| {
            asked = true;
            let pages: u64 = spots.iter().map(|spot| spot.pages()).sum();
            Found {
                in_place: in_place * pages as f64,
                to_come_back: to_come_back * pages as f64,
            }
        });
        (decision, asked)
    }

    fn measured(known: Known) -> Rule {
        Rule::Measured(Some(known))
    }

    fn estimate(decision: Decision) -> Estimate {
        match decision {
            Decision::Device { estimate, .. } | Decision::Cpu { estimate, .. } => {
                estimate.expect("it was judged by measurement")
            }
        }
    }

    const LARGE: (usize, usize, usize) = (512, 512, 512);
    /// A matrix of 32 MiB times a vector.
    const VECTOR: (usize, usize, usize) = (2048, 1, 2048);
    const ABSENT: (f64, f64) = (0.0, 0.0);
    const THERE: (f64, f64) = (1.0, 1.0);
    const FILE: (f64, f64) = (1.0, 0.0);

    #[test]
    fn size_alone_decides_of_small_calls() {
        assert_eq!(by_size(LEAST_FLOPS - 1.0, None), Some(Reason::Small));
        assert_eq!(by_size(LEAST_FLOPS, None), None);
        assert_eq!(by_size(1.0, Some(1.0)), None);
        assert_eq!(by_size(LEAST_FLOPS, Some(1e9)), Some(Reason::Small));
        // Nothing to do is nobody's, whatever the threshold.
        assert_eq!(by_size(0.0, Some(0.0)), Some(Reason::Small));
    }

    #[test]
    fn threshold_and_ignorance_need_no_measurement() {
        let all = Decision::Device {
            fetch: true,
            estimate: None,
        };
        assert_eq!(product(LARGE, Rule::Threshold, ABSENT), (all, false));
        let none = Decision::Cpu {
            reason: Reason::Small,
            estimate: None,
        };
        assert_eq!(product(LARGE, Rule::Measured(None), THERE), (none, false));
    }

    #[test]
    fn large_product_goes_to_the_device_without_a_look_at_its_pages() {
        let (decision, asked) = product(LARGE, measured(KNOWN), ABSENT);
        assert!(matches!(decision, Decision::Device { fetch: true, .. }));
        assert!(!asked);
        let estimate = estimate(decision);
        assert_eq!(estimate.pages_known, PagesKnown::NeedNot);
        assert_eq!(estimate.moving, estimate.pages);
        assert_eq!(estimate.cpu, 2.0 * 512f64.powi(3) * KNOWN.cpu_flop);
    }

    #[test]
    fn matrix_times_vector_goes_where_its_pages_are() {
        // The CPU's own time is not enough for the pages' way, but for the way back of those that are there.
        let fast = Known {
            cpu_flop: KNOWN.cpu_flop / 4.0,
            ..KNOWN
        };
        let slower = |decision| {
            matches!(
                decision,
                Decision::Cpu {
                    reason: Reason::Slower,
                    ..
                }
            )
        };
        let (decision, asked) = product(VECTOR, measured(fast), ABSENT);
        assert!(slower(decision) && asked);
        let (decision, asked) = product(VECTOR, measured(fast), THERE);
        assert!(matches!(decision, Decision::Device { fetch: false, .. }) && asked);
        let estimate = estimate(decision);
        assert_eq!((estimate.moving, estimate.away), (0.0, estimate.pages));
        // Pages that the CPU need not fetch are no reason.
        let (decision, _) = product(VECTOR, measured(fast), FILE);
        assert!(slower(decision));
        // A part of them: what is left has to move.
        let (decision, _) = product(VECTOR, measured(fast), (0.5, 0.5));
        assert!(slower(decision));
    }

    #[test]
    fn device_is_not_asked_where_no_answer_would_help() {
        let fast = Known {
            cpu_flop: 1e-12,
            ..KNOWN
        };
        let (decision, asked) = product(LARGE, measured(fast), THERE);
        assert!(!asked);
        let estimate = estimate(decision);
        assert_eq!(estimate.pages_known, PagesKnown::NoUse);
        assert!(!estimate.delayed);
    }

    #[test]
    fn delay_alone_is_told_from_a_device_that_is_slower_by_itself() {
        let late = Known {
            delay: 16.0,
            ..KNOWN
        };
        let (decision, _) = product(LARGE, measured(late), ABSENT);
        assert!(matches!(
            decision,
            Decision::Cpu {
                reason: Reason::Slower,
                ..
            }
        ));
        assert!(estimate(decision).delayed);
        let useless = Known {
            model: Model::USELESS,
            ..late
        };
        let (decision, _) = product(LARGE, measured(useless), ABSENT);
        assert!(!estimate(decision).delayed);
    }
}

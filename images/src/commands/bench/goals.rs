// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must be reached, as formulas over measurements.

use std::fmt;

use serde::Serialize;

use super::Measured;

/// Which side of the limit is good.
#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// It is told, and nothing is asked of it.
    None,
}

/// A goal: a measurement, or the quotient of two, and its limit.
pub struct Goal {
    what: &'static str,
    numerator: &'static str,
    denominator: Option<&'static str>,
    unit: &'static str,
    limit: Limit,
}

const fn value(
    what: &'static str,
    numerator: &'static str,
    unit: &'static str,
    limit: Limit,
) -> Goal {
    Goal {
        what,
        numerator,
        denominator: None,
        unit,
        limit,
    }
}

const fn ratio(
    what: &'static str,
    numerator: &'static str,
    denominator: &'static str,
    limit: Limit,
) -> Goal {
    Goal {
        what,
        numerator,
        denominator: Some(denominator),
        unit: "×",
        limit,
    }
}

/// Goals of `coax bench`.
pub const GENERAL: &[Goal] = &[
    value("warm demo, both modes", "demo", "s", Limit::AtMost(30.0)),
    value(
        "boot to first migrated page",
        "first_migration",
        "s",
        Limit::AtMost(6.0),
    ),
    value(
        "cold build, as it was",
        "cold_build",
        "s",
        Limit::AtMost(25.0 * 60.0),
    ),
    ratio(
        "device page fault, whole / empty command",
        "fault_on_fault_untouched_command",
        "nop_round_trip",
        Limit::AtMost(2.0),
    ),
    ratio(
        "the same, both processors busy",
        "busy_fault_on_fault_untouched_command",
        "busy_nop_round_trip",
        Limit::None,
    ),
    ratio(
        "list walk / host",
        "list_walk",
        "host_list",
        Limit::AtLeast(0.25),
    ),
    ratio(
        "SHA-256 / host",
        "sha256",
        "host_sha256",
        Limit::AtLeast(0.5),
    ),
    ratio(
        "SGEMM 1024 / host",
        "sgemm_1024",
        "host_sgemm",
        Limit::AtLeast(0.5),
    ),
    ratio(
        "DGEMM 1024 / host",
        "dgemm_1024",
        "host_dgemm",
        Limit::AtLeast(0.5),
    ),
    value(
        "back end memory, 64 contexts",
        "back_end_memory",
        "MiB",
        Limit::AtMost(64.0),
    ),
];

/// Goals of `coax bench migrate`; every number is the worst of its kind.
pub const MIGRATE: &[Goal] = &[
    value(
        "to device, 2 MiB pages / test_hmm",
        "ratio_to_device_thp",
        "×",
        Limit::AtLeast(6.0),
    ),
    value(
        "to device, 4 KiB pages / test_hmm",
        "ratio_to_device_4k",
        "×",
        Limit::AtLeast(2.0),
    ),
    value(
        "to system, 2 MiB pages / test_hmm",
        "ratio_to_system_thp",
        "×",
        Limit::AtLeast(2.0),
    ),
    value(
        "to system, 4 KiB pages / test_hmm",
        "ratio_to_system_4k",
        "×",
        Limit::AtLeast(1.2),
    ),
    value(
        "own call to device, 2 MiB / memcpy",
        "own_to_device_thp_of_memcpy",
        "×",
        Limit::AtLeast(0.4),
    ),
    value(
        "dearest page / cheapest, by size",
        "spread_by_bytes",
        "×",
        Limit::AtMost(1.2),
    ),
    value(
        "dearest page / one device's",
        "spread_by_devices",
        "×",
        Limit::AtMost(1.2),
    ),
];

/// Goals of `coax bench migrate --busy`, at which nothing else is measured.
pub const MIGRATE_BUSY: &[Goal] = &[value(
    "slowest move / test_hmm, busy host",
    "ratio_least",
    "×",
    Limit::AtLeast(1.0),
)];

/// Goals of `coax bench fairness`.
pub const FAIRNESS: &[Goal] = &[
    beside(
        "64 commands on pages that never come",
        "fault_beside_stuck_faults",
        "fault_without_stuck_faults",
    ),
    beside(
        "the same in 8 contexts of another user",
        "fault_beside_stuck_contexts",
        "fault_without_stuck_contexts",
    ),
    beside(
        "64 commands without end",
        "fault_beside_long_commands",
        "fault_without_long_commands",
    ),
    beside(
        "large copies by command",
        "fault_beside_large_copies",
        "fault_without_large_copies",
    ),
    beside(
        "moves of memory to and fro",
        "fault_beside_moves",
        "fault_without_moves",
    ),
    beside(
        "contexts that come and go",
        "fault_beside_opens",
        "fault_without_opens",
    ),
];

/// Goals of `coax bench invalidate`: what the device takes, whatever it is at work on.
pub const INVALIDATE: &[Goal] = &[
    answer("p99 of the device, 16 MiB fills", "fill_device_p99"),
    answer("p99 of the device, lists of 4,096 nodes", "list_device_p99"),
    answer("p99 of the device, contended atomics", "atomics_device_p99"),
    answer("p99 of the device, GEMM in 2 MiB tiles", "gemm_device_p99"),
];

/// How long an invalidation may wait for its answer.
const fn answer(what: &'static str, name: &'static str) -> Goal {
    value(what, name, "µs", Limit::AtMost(100.0))
}

/// What another process may do to one's faults.
const fn beside(what: &'static str, with: &'static str, without: &'static str) -> Goal {
    ratio(what, with, without, Limit::AtMost(2.0))
}

/// Goals of `coax bench programs`.
pub const PROGRAMS: &[Goal] = &[
    value(
        "A @ B, 1024², CPU / coax",
        "product_1024",
        "×",
        Limit::AtLeast(10.0),
    ),
    value(
        "A @ B, 2048², device's part / host's BLAS",
        "device_of_host",
        "×",
        Limit::AtMost(2.0),
    ),
    value(
        "slowest offload of a call / CPU",
        "worst_offloaded",
        "×",
        Limit::AtMost(1.1),
    ),
    value(
        "largest error / what rounding may do",
        "error_of_tolerance",
        "×",
        Limit::AtMost(1.0),
    ),
];

/// One more, if the CPU made that product too.
pub const PROGRAMS_FULL: &[Goal] = &[value(
    "A @ B, 2048², CPU / coax",
    "product_2048",
    "×",
    Limit::AtLeast(10.0),
)];

/// A goal beside what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    what: &'static str,
    measured: Option<f64>,
    limit: String,
    unit: &'static str,
    /// Whether it was measured and is on the good side.
    pub passed: bool,
}

/// Every goal, in order. One that was not measured is missed.
pub fn judge(goals: &[Goal], measured: &Measured) -> Vec<Judged> {
    goals.iter().map(|goal| judge_one(goal, measured)).collect()
}

fn judge_one(goal: &Goal, measured: &Measured) -> Judged {
    let value = measured
        .get(goal.numerator)
        .and_then(|numerator| match goal.denominator {
            None => Some(*numerator),
            Some(name) => measured
                .get(name)
                .map(|denominator| numerator / denominator),
        });
    let (limit, passed) = match goal.limit {
        Limit::AtMost(limit) => (
            format!("≤ {limit}"),
            value.is_some_and(|value| value <= limit),
        ),
        Limit::AtLeast(limit) => (
            format!("≥ {limit}"),
            value.is_some_and(|value| value >= limit),
        ),
        Limit::None => (String::new(), value.is_some()),
    };
    Judged {
        what: goal.what,
        measured: value,
        limit,
        unit: goal.unit,
        passed,
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self
            .measured
            .map_or("not measured".into(), |value| format!("{value:.2}"));
        let verdict = if self.passed { "pass" } else { "MISS" };
        write!(
            f,
            "{:<42}{value:>12} {:<4}{:>8}  {verdict}",
            self.what, self.unit, self.limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(what: &str, measured: &[(&str, f64)]) -> Judged {
        let measured = measured
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        let goals = judge(GENERAL, &measured.collect());
        goals
            .into_iter()
            .find(|goal| goal.what == what)
            .expect("one of the goals")
    }

    #[test]
    fn limits_hold_on_their_side() {
        assert!(judged("warm demo, both modes", &[("demo", 30.0)]).passed);
        assert!(!judged("warm demo, both modes", &[("demo", 30.1)]).passed);
        let walk = [("list_walk", 2.0), ("host_list", 8.0)];
        assert!(judged("list walk / host", &walk).passed);
        let slow = [("list_walk", 1.9), ("host_list", 8.0)];
        assert!(!judged("list walk / host", &slow).passed);
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let goal = judged("SHA-256 / host", &[("sha256", 1.0)]);
        assert_eq!(goal.measured, None);
        assert!(!goal.passed);
        assert!(goal.to_string().contains("MISS"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens at which point: it follows from the seed and the point's number alone.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rng::Rng;

/// A trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trial {
    /// The back end alone stops and goes on.
    Stall,
    /// The device goes: the back end dies, the driver is unbound, the device is unplugged.
    Kill,
}

impl Trial {
    /// Name in options and results.
    pub const fn name(self) -> &'static str {
        match self {
            Trial::Stall => "stall",
            Trial::Kill => "kill",
        }
    }

    /// Points in each mode, unless told otherwise. Those of [`Trial::Kill`] are, in three modes, 1,000 kills,
    /// 200 times unbound and 200 times unplugged, and a few more.
    pub const fn points(self) -> usize {
        match self {
            Trial::Stall => 200,
            Trial::Kill => 469,
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the guest is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The trial.
    pub trial: Trial,
    /// What everything follows from.
    pub seed: u64,
    /// The first point.
    pub from: usize,
    /// The first point that is not made any more.
    pub to: usize,
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The back end stops for so many milliseconds.
    Stop(u64),
    /// The back end is killed.
    Kill,
    /// The driver is unbound.
    Unbind,
    /// The device is unplugged.
    Unplug,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Stop(time) => write!(f, "stopped {:.1} s", *time as f64 / 1000.0),
            What::Kill => f.write_str("killed"),
            What::Unbind => f.write_str("unbound"),
            What::Unplug => f.write_str("unplugged"),
        }
    }
}

/// Of twenty stops, in an order that the seed gives: how many last from … to milliseconds. Most are short, so
/// that 200 of them take a quarter of an hour; two are longer than any time after which a driver might give a
/// device up.
const STOPS: [(usize, std::ops::Range<usize>); 3] =
    [(16, 1000..3000), (2, 3000..12_000), (2, 12_000..30_001)];
/// Of seven ends.
const ENDS: [What; 7] = [
    What::Kill,
    What::Kill,
    What::Kill,
    What::Kill,
    What::Kill,
    What::Unbind,
    What::Unplug,
];

/// What happens at this point.
pub fn what(trial: Trial, seed: u64, number: usize) -> What {
    let pick = |block: usize| {
        let mut order: Vec<usize> = (0..block).collect();
        Rng::new(seed, (number / block) as u64).shuffle(&mut order);
        order[number % block]
    };
    match trial {
        Trial::Kill => ENDS[pick(ENDS.len())],
        Trial::Stall => {
            let all: usize = STOPS.iter().map(|(count, _)| count).sum();
            let mut left = pick(all);
            let mut rng = Rng::new(!seed, number as u64);
            for (count, range) in STOPS {
                if left < count {
                    return What::Stop(rng.within(range) as u64);
                }
                left -= count;
            }
            What::Stop(0)
        }
    }
}

/// Time that the stops of these points take, without what is between them.
pub fn stopped(plan: &Plan) -> Duration {
    let times = (plan.from..plan.to).map(|number| match what(plan.trial, plan.seed, number) {
        What::Stop(time) => time,
        _ => 0,
    });
    Duration::from_millis(times.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_have_the_lengths_that_are_said() {
        let times: Vec<u64> = (0..200)
            .map(|number| match what(Trial::Stall, 7, number) {
                What::Stop(time) => time,
                other => panic!("{other}"),
            })
            .collect();
        let count =
            |range: std::ops::Range<u64>| times.iter().filter(|t| range.contains(t)).count();
        assert_eq!(count(1000..3000), 160);
        assert_eq!(count(3000..12_000), 20);
        assert_eq!(count(12_000..30_001), 20);
        let plan = Plan {
            trial: Trial::Stall,
            seed: 7,
            from: 0,
            to: 200,
        };
        let all = stopped(&plan).as_secs();
        assert!((600..1200).contains(&all), "{all} s of stops");
    }

    #[test]
    fn three_modes_of_kills_are_as_many_as_are_wanted() {
        let count = |wanted| {
            let points = 0..Trial::Kill.points();
            3 * points
                .filter(|number| what(Trial::Kill, 1, *number) == wanted)
                .count()
        };
        assert!(count(What::Kill) >= 1000);
        assert!(count(What::Unbind) >= 200 && count(What::Unplug) >= 200);
    }

    #[test]
    fn a_point_is_the_same_wherever_a_run_begins() {
        for number in 0..50 {
            let one = what(Trial::Stall, 3, number);
            assert_eq!(one, what(Trial::Stall, 3, number));
        }
        let first = |seed| (0..20).map(move |number| what(Trial::Stall, seed, number));
        assert!(!first(1).eq(first(2)));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Speeds of migration, and how the kernel's benchmark prints them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which way memory moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To device memory.
    ToDevice,
    /// To system memory.
    ToSystem,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::ToDevice, Direction::ToSystem];

    /// As tables and plots write it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::ToDevice => "to device",
            Direction::ToSystem => "to system",
        }
    }
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Size of the memory.
    pub bytes: u64,
    /// In pages of 2 MiB where they fit, or without any of those.
    pub thp: bool,
    /// Which way.
    pub direction: Direction,
}

/// Speeds in GB (10⁹ bytes) a second.
pub type Speeds = BTreeMap<Case, f64>;

/// Samples of each case.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<Case, Vec<f64>>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, case: Case, speed: f64) {
        self.0.entry(case).or_default().push(speed);
    }

    /// The median of each case; of an even number, the lower of the two in the middle.
    pub fn medians(&self) -> Speeds {
        let median = |samples: &Vec<f64>| {
            let mut sorted = samples.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            sorted.get(sorted.len().saturating_sub(1) / 2).copied()
        };
        self.0
            .iter()
            .filter_map(|(case, samples)| Some((*case, median(samples)?)))
            .collect()
    }
}

/// Reads the tables of the kernel's `benchmark_thp_migration`.
#[derive(Debug, Default)]
pub struct Tables {
    /// Size of the table that is being read.
    bytes: Option<u64>,
}

impl Tables {
    /// Speeds on this line, one with and one without large pages.
    ///
    /// Speeds themselves are printed with two digits behind the point, which near zero are no
    /// measurement; times have three, in milliseconds.
    pub fn line(&mut self, line: &str) -> Option<[(Case, f64); 2]> {
        if let Some(bytes) = title(line) {
            self.bytes = Some(bytes);
            return None;
        }
        let mut columns = line.split('|').map(str::trim);
        let direction = match columns.next()? {
            "Sys->Dev Migration" => Direction::ToDevice,
            "Dev->Sys Migration" => Direction::ToSystem,
            _ => return None,
        };
        let bytes = self.bytes?;
        let mut speed = |thp| {
            let milliseconds: f64 = columns.next()?.strip_suffix(" ms")?.parse().ok()?;
            let case = Case {
                bytes,
                thp,
                direction,
            };
            (milliseconds > 0.0).then_some((case, bytes as f64 / milliseconds / 1e6))
        };
        Some([speed(true)?, speed(false)?])
    }
}

/// The size in `=== Small Buffer (0.5 MB) ===`, where a MB has 2²⁰ bytes.
fn title(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("=== ")?.strip_suffix(" MB) ===")?;
    let (_, megabytes) = rest.rsplit_once('(')?;
    let megabytes: f64 = megabytes.parse().ok()?;
    Some((megabytes * f64::from(1 << 20)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
HMM THP Migration Benchmark
---------------------------
System page size: 4096 bytes

=== Small Buffer (0.5 MB) ===
                     | With THP        | Without THP     | Improvement
---------------------------------------------------------------------
Sys->Dev Migration   | 4.000 ms        | 8.000 ms        | 50.0%
Dev->Sys Migration   | 0.500 ms        | 1.000 ms        | 50.0%
S->D Throughput      | 0.12 GB/s      | 0.06 GB/s      | 100.0%
D->S Throughput      | 0.98 GB/s      | 0.49 GB/s      | 100.0%

=== One twenty eight THP Size (256.0 MB) ===
                     | With THP        | Without THP     | Improvement
---------------------------------------------------------------------
Sys->Dev Migration   | 268.435 ms        | 2684.355 ms        | 90.0%
Dev->Sys Migration   | 0.000 ms        | 1.000 ms        | nan%
";

    fn case(bytes: u64, thp: bool, direction: Direction) -> Case {
        Case {
            bytes,
            thp,
            direction,
        }
    }

    #[test]
    fn speeds_are_computed_from_the_times() {
        let mut tables = Tables::default();
        let speeds: Speeds = PRINTED
            .lines()
            .filter_map(|line| tables.line(line))
            .flatten()
            .collect();
        let near = |case: Case, wanted: f64| {
            let speed = speeds.get(&case).copied().unwrap_or_default();
            assert!((speed - wanted).abs() < 1e-4, "{case:?}: {speed}");
        };
        near(case(512 << 10, true, Direction::ToDevice), 0.131_072);
        near(case(512 << 10, false, Direction::ToSystem), 0.524_288);
        near(case(256 << 20, true, Direction::ToDevice), 1.0);
        near(case(256 << 20, false, Direction::ToDevice), 0.1);
        // A time that is none gives no speed.
        assert_eq!(speeds.len(), 6);
    }

    #[test]
    fn medians_do_not_depend_on_the_order() {
        let only = case(4096, false, Direction::ToSystem);
        let mut samples = Samples::default();
        for speed in [3.0, 1.0, 2.0] {
            samples.add(only, speed);
        }
        assert_eq!(samples.medians(), Speeds::from([(only, 2.0)]));
        samples.add(only, 4.0);
        assert_eq!(samples.medians(), Speeds::from([(only, 2.0)]));
    }
}

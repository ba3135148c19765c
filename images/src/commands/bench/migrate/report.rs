// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All speeds side by side: a table, JSON, and the numbers that goals speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::flatness::{self, Flatness, BY_BYTES, BY_DEVICES};
use super::own::Own;
use super::speeds::{Case, Direction, Speeds};
use crate::commands::bench::Measured;

/// From this size on, memory can be in large pages.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Speeds of one case in GB (10⁹ bytes) a second, as far as they were measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Size of the memory.
    pub bytes: u64,
    /// In large pages, or without any.
    pub thp: bool,
    /// Which way it moved.
    pub direction: Direction,
    /// The kernel's benchmark on coax.
    pub coax_gbps: Option<f64>,
    /// The same on `test_hmm`.
    pub test_hmm_gbps: Option<f64>,
    /// Their quotient.
    pub ratio: Option<f64>,
    /// By the driver's own call.
    pub own_ioctl_gbps: Option<f64>,
    /// A plain copy on the host.
    pub memcpy_gbps: Option<f64>,
}

/// Everything measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One for each case.
    pub rows: Vec<Row>,
    /// By size, then by number of devices.
    pub flatness: Vec<Flatness>,
}

impl Report {
    /// Puts side by side what was measured.
    pub fn new(coax: &Speeds, test_hmm: &Speeds, own: &Own, memcpy: &BTreeMap<u64, f64>) -> Self {
        let cases: BTreeSet<&Case> = [coax, test_hmm, &own.speeds]
            .into_iter()
            .flat_map(Speeds::keys)
            .collect();
        let row = |case: &Case| {
            let (coax, test_hmm) = (coax.get(case).copied(), test_hmm.get(case).copied());
            Row {
                bytes: case.bytes,
                thp: case.thp,
                direction: case.direction,
                coax_gbps: coax,
                test_hmm_gbps: test_hmm,
                ratio: coax.zip(test_hmm).map(|(coax, test_hmm)| coax / test_hmm),
                own_ioctl_gbps: own.speeds.get(case).copied(),
                memcpy_gbps: memcpy.get(&case.bytes).copied(),
            }
        };
        Report {
            rows: cases.into_iter().map(row).collect(),
            flatness: flatness::all(own),
        }
    }

    /// The numbers that goals speak of: each the worst of its kind.
    pub fn measured(&self) -> Measured {
        let least = |wanted: &dyn Fn(&Row) -> bool, value: &dyn Fn(&Row) -> Option<f64>| {
            let rows = self.rows.iter().filter(|row| wanted(row));
            rows.filter_map(value).min_by(f64::total_cmp)
        };
        let spread = |by: &str| {
            let curves = self.flatness.iter().filter(|curve| curve.by == by);
            curves
                .filter_map(|curve| curve.spread)
                .max_by(f64::total_cmp)
        };
        let large = |row: &Row| row.thp && row.bytes >= LARGE_PAGE_BYTES;
        let to_device = |row: &Row| row.direction == Direction::ToDevice;
        let of_memcpy = |row: &Row| Some(row.own_ioctl_gbps? / row.memcpy_gbps?);
        let numbers = [
            ("ratio_least", least(&|_| true, &|row| row.ratio)),
            (
                "ratio_to_device_thp",
                least(&|row| large(row) && to_device(row), &|row| row.ratio),
            ),
            (
                "ratio_to_device_4k",
                least(&|row| !row.thp && to_device(row), &|row| row.ratio),
            ),
            (
                "ratio_to_system_thp",
                least(&|row| large(row) && !to_device(row), &|row| row.ratio),
            ),
            (
                "ratio_to_system_4k",
                least(&|row| !row.thp && !to_device(row), &|row| row.ratio),
            ),
            (
                "own_to_device_thp_of_memcpy",
                least(&|row| large(row) && to_device(row), &of_memcpy),
            ),
            ("spread_by_bytes", spread(BY_BYTES)),
            ("spread_by_devices", spread(BY_DEVICES)),
        ];
        numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name.to_owned(), number?)))
            .collect()
    }
}

/// A size as `512K`, `2M` or `1G`.
pub fn size(bytes: u64) -> String {
    coax_images::launch::Bytes(bytes).to_string()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        writeln!(f, "GB/s, medians; `own` is the driver's own call\n")?;
        writeln!(
            f,
            "  {:>5} {:<6} {:<10} {:>7} {:>9} {:>6} {:>7} {:>7}",
            "size", "pages", "direction", "coax", "test_hmm", "ratio", "own", "memcpy"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "  {:>5} {:<6} {:<10} {:>7} {:>9} {:>6} {:>7} {:>7}",
                size(row.bytes),
                pages(row.thp),
                row.direction.name(),
                cell(row.coax_gbps),
                cell(row.test_hmm_gbps),
                cell(row.ratio),
                cell(row.own_ioctl_gbps),
                cell(row.memcpy_gbps)
            )?;
        }
        if self.flatness.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nNanoseconds a page of 4 KiB, by the driver's own call\n"
        )?;
        for curve in &self.flatness {
            writeln!(f, "  {curve}")?;
        }
        Ok(())
    }
}

/// As tables and plots write it.
pub fn pages(thp: bool) -> &'static str {
    if thp {
        "2 MiB"
    } else {
        "4 KiB"
    }
}

#[cfg(test)]
mod tests {
    use super::super::own::BYTES_AT_ONCE;
    use super::*;
    use serde_json::json;

    const CASE: Case = Case {
        bytes: 2 << 20,
        thp: true,
        direction: Direction::ToDevice,
    };

    fn report() -> Report {
        let mut own = Own::default();
        own.speeds.insert(CASE, 4.096);
        let gigabyte = Case {
            bytes: 1 << 30,
            ..CASE
        };
        own.speeds.insert(gigabyte, 2.048);
        let at_once = Case {
            bytes: BYTES_AT_ONCE,
            ..CASE
        };
        for (devices, speed) in [(1, 4.096), (2, 8.192), (4, 3.2768)] {
            own.at_once.insert((at_once, devices), speed);
        }
        let memcpy = BTreeMap::from([(2 << 20, 8.192), (1 << 30, 8.192)]);
        let coax = Speeds::from([(CASE, 6.0)]);
        Report::new(&coax, &Speeds::from([(CASE, 0.5)]), &own, &memcpy)
    }

    #[test]
    fn json_has_a_row_for_each_case_with_the_fields_that_readers_expect() {
        let json = serde_json::to_value(report()).expect("plain data");
        assert_eq!(
            json["rows"],
            json!([
                {
                    "bytes": 2 << 20, "thp": true, "direction": "to_device",
                    "coax_gbps": 6.0, "test_hmm_gbps": 0.5, "ratio": 12.0,
                    "own_ioctl_gbps": 4.096, "memcpy_gbps": 8.192,
                },
                {
                    "bytes": 1 << 30, "thp": true, "direction": "to_device",
                    "coax_gbps": null, "test_hmm_gbps": null, "ratio": null,
                    "own_ioctl_gbps": 2.048, "memcpy_gbps": 8.192,
                },
            ])
        );
        let first = &json["flatness"][0];
        assert_eq!(first["by"], "bytes");
        assert_eq!(first["spread"], 2.0);
        assert_eq!(first["points"][1]["ns_per_page"], 2000.0);
    }

    #[test]
    fn goals_get_the_worst_of_each_kind() {
        let measured = report().measured();
        let number = |name: &str| measured.get(name).copied();
        assert_eq!(number("ratio_to_device_thp"), Some(12.0));
        assert_eq!(number("own_to_device_thp_of_memcpy"), Some(0.25));
        assert_eq!(number("spread_by_bytes"), Some(2.0));
        // Two devices were faster than one, four slower.
        assert_eq!(number("spread_by_devices"), Some(1.25));
        assert_eq!(number("ratio_to_device_4k"), None);
    }

    #[test]
    fn the_table_shows_what_was_not_measured_as_such() {
        let text = report().to_string();
        assert!(text.contains("2M 2 MiB  to device     6.00      0.50  12.00    4.10    8.19"));
        assert!(text.contains("1G 2 MiB  to device        -         -      -    2.05    8.19"));
        assert!(text.contains("by devices 2 MiB  to device  1: 1000, 2: 500, 4: 1250"));
    }
}

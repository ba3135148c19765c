// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a page costs, by things that it should not depend on.

use std::fmt;

use serde::Serialize;

use super::own::{Own, BYTES_AT_ONCE, DEVICES};
use super::report::{pages, size, LARGE_PAGE_BYTES};
use super::speeds::{Case, Direction};

const PAGE_BYTES: f64 = 4096.0;
/// By the size of the memory that moves.
pub const BY_BYTES: &str = "bytes";
/// By the number of devices at work at once.
pub const BY_DEVICES: &str = "devices";

/// A curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flatness {
    /// [`BY_BYTES`] or [`BY_DEVICES`].
    pub by: &'static str,
    thp: bool,
    direction: Direction,
    points: Vec<Point>,
    /// The dearest page's cost: by `bytes`, over the cheapest's; by `devices`, over that with one.
    pub spread: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Point {
    bytes: u64,
    devices: u32,
    ns_per_page: f64,
}

/// All curves, by size first.
pub fn all(own: &Own) -> Vec<Flatness> {
    let kinds = [true, false].map(|thp| Direction::ALL.map(|direction| (thp, direction)));
    let kinds = kinds.concat();
    let by_size = kinds.iter().map(|kind| by_size(own, *kind));
    let by_devices = kinds.iter().map(|kind| by_devices(own, *kind));
    let all = by_size.chain(by_devices);
    all.filter(|curve| !curve.points.is_empty()).collect()
}

/// Costs by size, from that of a large page on.
fn by_size(own: &Own, (thp, direction): (bool, Direction)) -> Flatness {
    let points: Vec<Point> = own
        .speeds
        .iter()
        .filter(|(case, _)| case.thp == thp && case.direction == direction)
        .filter(|(case, _)| case.bytes >= LARGE_PAGE_BYTES)
        .map(|(case, speed)| point(case.bytes, 1, *speed))
        .collect();
    let costs = || points.iter().map(|point| point.ns_per_page);
    let spread = costs()
        .max_by(f64::total_cmp)
        .zip(costs().min_by(f64::total_cmp))
        .map(|(most, least)| most / least);
    Flatness {
        by: BY_BYTES,
        thp,
        direction,
        points,
        spread,
    }
}

/// Costs by the number of devices at work at once.
fn by_devices(own: &Own, (thp, direction): (bool, Direction)) -> Flatness {
    let case = Case {
        bytes: BYTES_AT_ONCE,
        thp,
        direction,
    };
    let measured = DEVICES
        .into_iter()
        .filter_map(|devices| Some((devices, *own.at_once.get(&(case, devices))?)));
    let points: Vec<Point> = measured
        .map(|(devices, speed)| point(case.bytes, devices, speed))
        .collect();
    let costs = points.iter().map(|point| point.ns_per_page);
    let alone = points.iter().find(|point| point.devices == 1);
    let spread = costs
        .max_by(f64::total_cmp)
        .zip(alone)
        .filter(|_| points.len() == DEVICES.len())
        .map(|(most, alone)| most / alone.ns_per_page);
    Flatness {
        by: BY_DEVICES,
        thp,
        direction,
        points,
        spread,
    }
}

fn point(bytes: u64, devices: u32, gbps: f64) -> Point {
    Point {
        bytes,
        devices,
        ns_per_page: PAGE_BYTES / gbps,
    }
}

impl fmt::Display for Flatness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "by {:<8}{:<6} {:<10}",
            self.by,
            pages(self.thp),
            self.direction.name()
        )?;
        for point in &self.points {
            match self.by {
                BY_DEVICES => write!(f, " {}: {:.0},", point.devices, point.ns_per_page)?,
                _ => write!(f, " {}: {:.0},", size(point.bytes), point.ns_per_page)?,
            }
        }
        match self.spread {
            Some(spread) => write!(f, " spread {spread:.2}"),
            None => f.write_str(" not measured"),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a storm came to.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use coax::{Direction, Migrated};
use serde::Serialize;
use serde_json::{json, Value};

use super::End;

/// Pulls one way, and the driver's answers to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Requests.
    pub pulls: u64,
    /// Pages moved.
    pub moved: u64,
    /// Pages that were there before.
    pub already: u64,
    /// Pages that stayed: never touched, file-backed, pinned, or no memory.
    pub left: u64,
}

/// What has been counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    over: Way,
    back: Way,
    processes: BTreeSet<u32>,
    /// Pulls of ranges that the program had unmapped meanwhile.
    pub vanished: u64,
    /// Pulls for which the guest had no memory.
    pub no_memory: u64,
    /// Pulls from or to memory that a process may not use.
    pub forbidden: u64,
    /// Why the storm ended before the program.
    pub error: Option<String>,
}

/// What is known from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Mode of device memory.
    pub mode: &'static str,
    /// What the random choices followed from.
    pub seed: u64,
    /// How the program ended.
    pub end: End,
    /// From its start to its end.
    pub seconds: f64,
    /// Pages that the CPU brought back by touching them, in the whole guest.
    pub by_fault: u64,
    /// Pages that were not moved because device memory was full.
    pub device_full: u64,
}

impl Tally {
    /// Adds the driver's answer to a pull.
    pub fn add(&mut self, direction: Direction, migrated: Migrated) {
        let way = match direction {
            Direction::ToDevice => &mut self.over,
            Direction::ToSystem => &mut self.back,
        };
        way.pulls += 1;
        way.moved += migrated.moved;
        way.already += migrated.already;
        way.left += migrated.left;
    }

    /// Takes note of processes that are in the storm.
    pub fn saw(&mut self, processes: &[u32]) {
        self.processes.extend(processes);
    }

    /// For programs.
    pub fn json(&self, frame: &Frame) -> Value {
        let end = match frame.end {
            End::Code(code) => json!({ "code": code }),
            End::Signal(signal) => json!({ "signal": signal }),
        };
        let rate = |pages| frame.rate(pages);
        json!({
            "mode": frame.mode,
            "seed": frame.seed,
            "seconds": frame.seconds,
            "processes": self.processes.len(),
            "over": self.over,
            "back": self.back,
            "by_fault": frame.by_fault,
            "device_full": frame.device_full,
            "vanished": self.vanished,
            "no_memory": self.no_memory,
            "forbidden": self.forbidden,
            "pages_per_second": {
                "over": rate(self.over.moved),
                "back": rate(self.back.moved),
                "by_fault": rate(frame.by_fault),
            },
            "end": end,
            "error": self.error,
        })
    }

    /// For people.
    pub fn text(&self, frame: &Frame) -> String {
        let Frame {
            mode,
            seed,
            seconds,
            by_fault,
            device_full,
            ..
        } = *frame;
        let mut text = format!(
            "coaxctl storm: {seconds:.1} s in {mode} mode, seed {seed}, {} processes\n",
            self.processes.len()
        );
        for (name, way) in [("over", self.over), ("back", self.back)] {
            text.push_str(&format!(
                "  {name}      {} pages in {} pulls, {:.0} a second; {} were there, {} stayed\n",
                way.moved,
                way.pulls,
                frame.rate(way.moved),
                way.already,
                way.left
            ));
        }
        text.push_str(&format!(
            "  by fault  {by_fault} pages brought back by the CPU, {:.0} a second\n  \
             refused   {device_full} pages for want of device memory, {} pulls for want of \
             memory, {} of what was unmapped, {} where a process may not have memory",
            frame.rate(by_fault),
            self.no_memory,
            self.vanished,
            self.forbidden
        ));
        if let Some(error) = &self.error {
            text.push_str(&format!("\n  the storm ended before the program: {error}"));
        }
        text
    }
}

impl Frame {
    fn rate(&self, pages: u64) -> f64 {
        pages as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_added_by_direction() {
        let mut tally = Tally::default();
        let migrated = Migrated {
            moved: 5,
            already: 1,
            left: 2,
        };
        tally.add(Direction::ToDevice, migrated);
        tally.add(Direction::ToDevice, migrated);
        tally.add(Direction::ToSystem, migrated);
        tally.saw(&[4, 5]);
        tally.saw(&[5]);
        let frame = Frame {
            mode: "private",
            seed: 3,
            end: End::Code(0),
            seconds: 2.0,
            by_fault: 8,
            device_full: 0,
        };
        let json = tally.json(&frame);
        assert_eq!(json["over"]["pulls"], 2);
        assert_eq!(json["over"]["moved"], 10);
        assert_eq!(json["back"]["left"], 2);
        assert_eq!(json["processes"], 2);
        assert_eq!(json["pages_per_second"]["over"], 5.0);
        assert_eq!(json["pages_per_second"]["by_fault"], 4.0);
        assert_eq!(json["end"]["code"], 0);
        assert!(tally.text(&frame).contains("10 pages in 2 pulls"));
    }
}

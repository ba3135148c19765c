// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the two halves tell each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the guest is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Least time in storms.
    pub seconds: u64,
    /// The step of a pass to begin with.
    pub from: usize,
    /// The source of SQLite, with its tests.
    pub sqlite_source: PathBuf,
    /// Where SQLite was built.
    pub sqlite_build: PathBuf,
    /// What parts came to without a storm, in an earlier VM with the same kernel and files, by their
    /// names. For others the guest finds out.
    pub known: BTreeMap<String, Reference>,
}

/// What a part comes to without a storm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// How it ended and what it printed.
    pub result: String,
    /// How long it took.
    pub seconds: f64,
}

/// What the guest tells: each a line of its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A part has run without a storm.
    Reference {
        /// Name of the part.
        part: String,
        /// What it came to.
        reference: Reference,
    },
    /// A part is running in a storm.
    Progress(Progress),
    /// A part has run in a storm.
    Round(Round),
    /// Everything has run, and this many rounds were told.
    End {
        /// How many.
        rounds: usize,
        /// The step of a pass that would have come next.
        next: usize,
    },
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Name of the part that runs.
    pub part: String,
    /// The step of a pass that it is.
    pub step: usize,
    /// Whether it runs in a storm.
    pub storm: bool,
    /// Seconds of storm left.
    pub left: u64,
    /// Pages that have moved in the guest since its start, in both directions.
    pub moved: u64,
}

/// One part in a storm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Name of the workload.
    pub workload: String,
    /// Name of the part.
    pub part: String,
    /// How long it took.
    pub seconds: f64,
    /// How long it takes without.
    pub seconds_without: f64,
    /// What the storm came to.
    pub storm: Storm,
    /// What was wrong: nothing if the part came to the same as without a storm, and pages moved.
    pub problems: Vec<String>,
}

/// What `coaxctl storm` reports, and these tests look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// What the random choices followed from.
    pub seed: u64,
    /// Processes that were in it.
    pub processes: u64,
    /// Pages pulled over to device memory, and the pulls.
    pub over: Way,
    /// Pages pulled back, and the pulls.
    pub back: Way,
    /// Pages that the CPU brought back by touching them.
    pub by_fault: u64,
}

/// Pulls in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// How many.
    pub pulls: u64,
    /// Pages that moved.
    pub moved: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_and_survives_the_trip() {
        let event = Event::Reference {
            part: "sort".into(),
            reference: Reference {
                result: "two\nlines".into(),
                seconds: 1.5,
            },
        };
        let line = serde_json::to_string(&event).expect("plain data");
        assert!(!line.contains('\n'));
        assert_eq!(
            serde_json::from_str::<Event>(&line).expect("own output"),
            event
        );
    }

    #[test]
    fn the_report_of_a_storm_is_understood() {
        let report = r#"{"mode": "private", "seed": 18446744073709551615, "processes": 2,
            "over": {"pulls": 3, "moved": 4, "already": 0, "left": 1},
            "back": {"pulls": 5, "moved": 6, "already": 0, "left": 1}, "by_fault": 7, "error": null}"#;
        let storm: Storm = serde_json::from_str(report).expect("what coaxctl writes");
        assert_eq!((storm.over.moved, storm.back.pulls), (4, 5));
        assert_eq!(storm.seed, u64::MAX);
    }
}

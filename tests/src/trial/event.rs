// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest tells: each a line of its standard output.

use serde::{Deserialize, Serialize};

use super::plan::What;

/// What the guest tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It comes to a point; if the VM ends now, this is where.
    Begin {
        /// The point's number.
        point: usize,
        /// What happens.
        what: What,
    },
    /// A point is over.
    Point(Point),
    /// All are.
    End,
}

/// What came of a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its number.
    pub point: usize,
    /// What happened.
    pub what: What,
    /// How long it took, with what led to it.
    pub seconds: f64,
    /// From the event until nobody waited for the device any more: until it was at work again (stop), or every
    /// worker had its error and had found its memory right without the device (kill).
    pub settled: f64,
    /// Counts since the point before.
    pub counts: Counts,
    /// Bytes of fresh memory that were looked at.
    pub fresh: u64,
    /// What was wrong, in words: bytes that were foreign or lost, ends of programs, limits that passed.
    pub problems: Vec<String>,
}

/// What the crew has counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Commands that were done.
    pub commands: u64,
    /// Pages that were asked to move and did.
    pub moved: u64,
    /// Calls that were refused, or ended by an error, because the device had gone.
    pub refused: u64,
    /// Bytes that were compared with what they have to be.
    pub verified: u64,
    /// Of them, those that were not that.
    pub lost: u64,
    /// Bytes in fresh memory that were not zero.
    pub foreign: u64,
    /// Programs that began.
    pub programs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_survives_the_trip() {
        let event = Event::Point(Point {
            point: 3,
            what: What::Stop(1500),
            seconds: 2.5,
            settled: 1.75,
            counts: Counts {
                lost: 1,
                ..Counts::default()
            },
            fresh: 4096,
            problems: vec!["two\nlines".into()],
        });
        let line = serde_json::to_string(&event).expect("plain data");
        assert!(!line.contains('\n'));
        assert_eq!(
            serde_json::from_str::<Event>(&line).expect("own output"),
            event
        );
    }
}

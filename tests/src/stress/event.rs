// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the two halves tell each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the guest is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How long each stressor runs, each time.
    pub seconds: u64,
    /// The first step.
    pub from: usize,
    /// Only stressors whose names contain one of these; all if empty.
    pub filters: Vec<String>,
    /// How stressors end without a storm, by name; for others the guest finds out.
    pub known: BTreeMap<String, Ended>,
}

/// How stress-ng ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit status, 128 and the signal that ended it, or nothing if it had to be killed.
    pub status: Option<i32>,
    /// It says that the run was successful.
    pub success: bool,
    /// What it complained of.
    pub said: Vec<String>,
}

/// What the guest tells: each a line of its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It comes to a step; if the VM ends now, this is where.
    Begin {
        /// The step's number.
        step: usize,
        /// Steps in all.
        of: usize,
        /// The stressor.
        name: String,
        /// Whether it runs in a storm.
        storm: bool,
    },
    /// A stressor has run without a storm.
    Reference {
        /// Its name.
        name: String,
        /// How it ended.
        ended: Ended,
    },
    /// A stressor has run in a storm.
    Ran {
        /// The step's number.
        step: usize,
        /// Its name.
        name: String,
        /// How it ended.
        ended: Ended,
        /// Pages that moved to the device and back, the CPU's touches among the latter.
        moved: [u64; 2],
        /// What the storm's choices followed from.
        seed: u64,
        /// What was wrong: nothing if it ended as without a storm.
        problems: Vec<String>,
    },
    /// A stressor does not run here without a storm either.
    LeftOut {
        /// The step's number.
        step: usize,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// All have run.
    End,
}

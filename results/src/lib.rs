// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of a run of tests: one value, `Run`, which is written and read as KTAP, JUnit and JSON.
//!
//! | module | job |
//! |---|---|
//! | [`ktap`] | the lines of KTAP, and their parser, for guest and host |
//! | [`run`] | the value; names in it are unique |
//! | [`document`] | a run as a KTAP document, nested by suite and VM |
//! | [`junit`] | a run as JUnit XML, a `testsuite` for each suite and VM |
//! | [`file`](mod@file) | a run in a file of any of the three formats |
//! | [`partition`] | which part of a run a machine has, as `slice:M/N` |
//! | [`merge`](mod@merge) | the parts of a run as one |
#![forbid(unsafe_code)]

pub mod ktap;

#[cfg(feature = "host")]
pub mod document;
#[cfg(feature = "host")]
pub mod file;
#[cfg(feature = "host")]
pub mod junit;
#[cfg(feature = "host")]
pub mod merge;
#[cfg(feature = "host")]
pub mod partition;
#[cfg(feature = "host")]
pub mod run;

/// How a test ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "host",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "outcome", content = "reason", rename_all = "lowercase")
)]
pub enum Outcome {
    /// It showed what it should.
    Passed,
    /// It did not.
    Failed,
    /// It did not apply, for this reason.
    Skipped(String),
}

impl Outcome {
    /// Passed, if `passed` holds.
    pub fn of(passed: bool) -> Self {
        if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        }
    }
}

/// One test, with where it stands.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "host", derive(serde::Serialize, serde::Deserialize))]
pub struct TestResult {
    /// Suite, VM and whatever else it is a part of, the outermost first; may be empty.
    pub path: Vec<String>,
    /// Its name, which no other of the same path has.
    pub name: String,
    /// How it ended.
    #[cfg_attr(feature = "host", serde(flatten))]
    pub outcome: Outcome,
    /// Seconds that it took, if that is known.
    pub seconds: Option<f64>,
    /// What was said about it, line by line.
    #[cfg_attr(feature = "host", serde(default))]
    pub diagnostics: Vec<String>,
}

impl TestResult {
    /// A test of this path that ended so.
    pub fn new<P: AsRef<str>>(path: &[P], name: impl Into<String>, outcome: Outcome) -> Self {
        TestResult {
            path: path.iter().map(|part| part.as_ref().to_owned()).collect(),
            name: name.into(),
            outcome,
            seconds: None,
            diagnostics: Vec::new(),
        }
    }

    /// The same, which took this long.
    #[must_use]
    pub fn took(mut self, time: std::time::Duration) -> Self {
        self.seconds = Some(time.as_secs_f64());
        self
    }

    /// The same, with what was said about it.
    #[must_use]
    pub fn saying(mut self, text: &str) -> Self {
        self.diagnostics.extend(text.lines().map(str::to_owned));
        self
    }

    /// Path and name as one, with slashes between: unique in a run.
    pub fn full_name(&self) -> String {
        let parts = self.path.iter().chain([&self.name]);
        parts.map(String::as_str).collect::<Vec<_>>().join("/")
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run in a file of any of the formats.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::run::Run;
use crate::{document, junit};

/// How a run is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// KTAP, version 1.
    Ktap,
    /// JUnit XML.
    Junit,
    /// JSON.
    Json,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Ktap, Format::Junit, Format::Json];

    /// That of a text, by how it begins.
    fn of(text: &str) -> Self {
        match text.trim_start().chars().next() {
            Some('{') => Format::Json,
            Some('<') => Format::Junit,
            _ => Format::Ktap,
        }
    }

    /// Writes a run.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub fn write(self, run: &Run, mut to: impl Write) -> io::Result<()> {
        match self {
            Format::Ktap => document::write(run, to),
            Format::Junit => junit::write(run, to),
            Format::Json => {
                let text = serde_json::to_string_pretty(run)?;
                writeln!(to, "{text}")
            }
        }
    }
}

/// A run in a text of any of the formats.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn parse(text: &str) -> Result<Run, String> {
    match Format::of(text) {
        Format::Ktap => document::read(text),
        Format::Junit => junit::read(text),
        Format::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

/// A run in a file of any of the formats.
///
/// # Errors
///
/// Names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Run, String> {
    let at = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    parse(&text).map_err(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read_as_it_was_written() {
        let run = document::tests::example();
        for format in Format::ALL {
            let mut bytes = Vec::new();
            format.write(&run, &mut bytes).expect("a vector takes all");
            let text = String::from_utf8(bytes).expect("text");
            let read = parse(&text).unwrap_or_else(|error| panic!("{format:?}: {error}\n{text}"));
            assert_eq!(read.partition(), run.partition());
            assert_eq!(read.machines(), run.machines());
            // Two of them keep what belongs together beside each other.
            let sorted = |run: &Run| {
                let mut tests = run.tests().to_vec();
                tests.sort_by_key(crate::TestResult::full_name);
                tests
            };
            assert_eq!(sorted(&read), sorted(&run), "{format:?}\n{text}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cut.json");
        fs::write(&path, "{\"tests\": [").expect("it can be written");
        let error = read(&path).expect_err("it is cut");
        assert!(
            error.contains("cut.json") && error.contains("EOF"),
            "{error}"
        );
        let error = read(&folder.path().join("none")).expect_err("it is not there");
        assert!(error.contains("none"), "{error}");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run as JUnit XML, in the form that Jenkins, GitLab and GitHub's actions read: a `testsuite` for each
//! path, whose parts are joined by slashes.

use std::io::{self, Write};
use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite, XmlString,
};

use crate::run::Run;
use crate::{Outcome, TestResult};

/// Name of the report.
const NAME: &str = "coax";
/// The property of suites that says which part of a run this is.
const PARTITION: &str = "partition";
/// Properties of suites that say what ran the run, one each.
const MACHINE: &str = "machine";

/// Writes the document.
///
/// # Errors
///
/// It could not be written.
pub fn write(run: &Run, to: impl Write) -> io::Result<()> {
    let mut suites: Vec<(String, TestSuite, f64)> = Vec::new();
    for test in run.tests() {
        let name = test.path.join("/");
        let place = suites.iter().position(|(known, ..)| *known == name);
        let place = place.unwrap_or_else(|| {
            let mut suite = TestSuite::new(&*name);
            if let Some(partition) = run.partition() {
                suite.add_property(Property::new(PARTITION, partition.to_string()));
            }
            for machine in run.machines() {
                suite.add_property(Property::new(MACHINE, machine.as_str()));
            }
            suites.push((name, suite, 0.0));
            suites.len() - 1
        });
        let (_, suite, seconds) = &mut suites[place];
        *seconds += test.seconds.unwrap_or(0.0);
        suite.add_test_case(case(test));
    }
    let mut report = Report::new(NAME);
    let mut whole = 0.0;
    for (_, mut suite, seconds) in suites {
        whole += seconds;
        suite.set_time(time(seconds));
        report.add_test_suite(suite);
    }
    report.set_time(time(whole));
    report.serialize(to).map_err(io::Error::other)
}

/// Reads a document.
///
/// # Errors
///
/// Says why it is none.
pub fn read(text: &str) -> Result<Run, String> {
    let report = Report::deserialize_from_str(text).map_err(|error| error.to_string())?;
    let named = |name: &'static str| {
        let suites = report.test_suites.iter();
        let properties = suites.flat_map(|suite| &suite.properties);
        let properties = properties.filter(move |property| property.name.as_str() == name);
        properties.map(|property| property.value.as_str())
    };
    let partition = named(PARTITION).next().map(str::parse);
    let mut run = Run::of(partition.transpose()?);
    named(MACHINE).for_each(|machine| run.ran_on(machine));
    for suite in &report.test_suites {
        let name = suite.name.as_str();
        let path: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
        for case in &suite.test_cases {
            run.add(test(&path, case));
        }
    }
    Ok(run)
}

fn case(test: &TestResult) -> TestCase {
    let said = || XmlString::new(test.diagnostics.join("\n"));
    let status = match &test.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type("failed");
            if let Some(first) = test.diagnostics.first() {
                status.set_message(first.trim());
                status.set_description(said());
            }
            status
        }
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
    };
    let failed = test.outcome == Outcome::Failed;
    let mut case = TestCase::new(&*test.name, status);
    case.set_classname(test.path.join("."));
    if let Some(seconds) = test.seconds {
        case.set_time(time(seconds));
    }
    if !failed && !test.diagnostics.is_empty() {
        case.set_system_out(said());
    }
    case
}

fn test(path: &[&str], case: &TestCase) -> TestResult {
    let lines = |text: &Option<XmlString>| -> Vec<String> {
        let text = text.iter().flat_map(|text| text.as_str().lines());
        text.map(str::to_owned).collect()
    };
    let (outcome, said) = match &case.status {
        TestCaseStatus::Success { .. } => (Outcome::Passed, lines(&case.system_out)),
        TestCaseStatus::NonSuccess { description, .. } => (Outcome::Failed, lines(description)),
        TestCaseStatus::Skipped { message, .. } => {
            let reason = message.as_ref().map(|text| text.as_str().to_owned());
            (
                Outcome::Skipped(reason.unwrap_or_default()),
                lines(&case.system_out),
            )
        }
    };
    TestResult {
        seconds: case.time.map(|time| time.as_secs_f64()),
        diagnostics: said,
        ..TestResult::new(path, case.name.as_str(), outcome)
    }
}

/// Whole milliseconds, which all formats have.
fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64((seconds * 1000.0).round() / 1000.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_words_and_a_skip_its_reason() {
        let mut bytes = Vec::new();
        write(&crate::document::tests::example(), &mut bytes).expect("a vector takes all");
        let text = String::from_utf8(bytes).expect("text");
        for wanted in [
            "<testsuites name=\"coax\" tests=\"6\" skipped=\"2\" failures=\"1\" errors=\"0\" time=\"1.500\">",
            "<testsuite name=\"vm/private.standard\" tests=\"2\" skipped=\"1\" errors=\"0\" failures=\"1\" time=\"1.500\">",
            "<property name=\"partition\" value=\"slice:1/2\"/>",
            "<testcase name=\"private.fork.a\" classname=\"vm.private.standard\" time=\"1.500\">",
            "&lt;1&gt; &amp; ",
            "<skipped message=\"no swap\"/>",
        ] {
            assert!(text.contains(wanted), "no {wanted} in {text}");
        }
    }

    #[test]
    fn what_is_no_junit_is_refused() {
        for text in ["", "<html></html>", "<testsuites name=\"a\"", "{}"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

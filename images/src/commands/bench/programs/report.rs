// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest's lines say: tables, JSON, and the numbers that goals speak of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::commands::bench::Measured;

/// A program with the device and without. Counters are differences of driver's and device's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    program: String,
    /// Rows and columns, or bytes.
    size: u64,
    /// What numpy was asked for.
    #[serde(default)]
    work: Option<String>,
    /// Calls, or commands where there are no calls, that the device did.
    calls: u64,
    commands: u64,
    pages_to_device: u64,
    pages_back: u64,
    /// Bytes that the device read and wrote in system memory.
    bytes_in_place: u64,
    /// Sum over all engines.
    engine_seconds: f64,
    /// Time of the calls that were offloaded, the pages' way there included.
    #[serde(default)]
    calls_seconds: Option<f64>,
    coax_seconds: f64,
    #[serde(default)]
    cpu_seconds: Option<f64>,
    /// Without the device, but with the LAPACK that calls the BLAS by name.
    #[serde(default)]
    same_lapack_seconds: Option<f64>,
    /// From the CPU's result, relative to the largest number.
    #[serde(default)]
    difference: Option<f64>,
    /// What rounding may make of it.
    #[serde(default)]
    tolerance: Option<f64>,
    #[serde(default)]
    identical: Option<bool>,
}

/// A BLAS call by the drop-in and by the library behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    call: String,
    m: u64,
    n: u64,
    k: u64,
    ld: u64,
    /// The drop-in's matrices were with the device.
    there: bool,
    rounds: u32,
    /// Rounds in which the device was at work.
    offloaded: u32,
    /// Until the CPU has looked at every page.
    coax_seconds: f64,
    /// The call alone.
    call_seconds: f64,
    cpu_seconds: f64,
    /// Median of the rounds' own.
    quotient: f64,
    difference: f64,
}

/// The largest product on the host itself.
#[derive(Clone, Debug, Serialize)]
pub struct HostProduct {
    pub size: u64,
    /// The fastest of a few.
    pub seconds: f64,
    /// The host's load average afterwards.
    pub load: Option<f64>,
}

/// Everything measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    engines: u16,
    host: HostProduct,
    programs: Vec<Program>,
    calls: Vec<Call>,
    levels: Vec<Call>,
}

/// A line of the guest.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Program(Program),
    Call(Call),
    Level(Call),
}

impl Program {
    fn is_right(&self) -> bool {
        match (self.difference, self.tolerance) {
            (Some(difference), Some(tolerance)) => difference <= tolerance,
            _ => self.identical == Some(true),
        }
    }

    fn speedup(&self) -> Option<f64> {
        Some(self.cpu_seconds? / self.coax_seconds)
    }
}

impl Report {
    /// Nothing yet, with so many engines.
    pub fn new(engines: u16, host: HostProduct) -> Self {
        Self {
            engines,
            host,
            programs: Vec::new(),
            calls: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// Takes a line, and says what it measured, if it is a measurement.
    pub fn line(&mut self, line: &str) -> Option<String> {
        let line = serde_json::from_str::<Line>(line).ok()?;
        let shown = match &line {
            Line::Program(program) => program.to_string(),
            Line::Call(call) | Line::Level(call) => call.to_string(),
        };
        match line {
            Line::Program(program) => self.programs.push(program),
            Line::Call(call) => self.calls.push(call),
            Line::Level(call) => self.levels.push(call),
        }
        Some(shown)
    }

    fn product(&self, size: u64) -> Option<&Program> {
        let wanted = |program: &&Program| program.size == size;
        let is_product = |program: &&Program| program.work.as_deref() == Some("product");
        self.programs.iter().filter(wanted).find(is_product)
    }

    /// The device's share of the largest product, all engines at work at once, and its time of the
    /// host's.
    fn device_part(&self) -> Option<(f64, f64)> {
        let product = self.product(self.host.size)?;
        let seconds = product.engine_seconds / f64::from(self.engines);
        Some((seconds, seconds / self.host.seconds))
    }

    /// The call that offloading has made slowest, of those that it was done for.
    fn worst(&self) -> Option<&Call> {
        let all = self.calls.iter().chain(&self.levels);
        let offloaded = all.filter(|call| call.offloaded > 0);
        offloaded.max_by(|a, b| a.quotient.total_cmp(&b.quotient))
    }

    /// The numbers that goals speak of.
    pub fn measured(&self) -> Measured {
        let speedup = |size| self.product(size).and_then(Program::speedup);
        let error = |program: &Program| match (program.difference, program.tolerance) {
            (Some(difference), Some(tolerance)) => Some(difference / tolerance),
            _ => (program.identical == Some(false)).then_some(f64::INFINITY),
        };
        let errors = self.programs.iter().filter_map(error);
        let numbers = [
            ("product_1024", speedup(1024)),
            ("product_2048", speedup(2048)),
            ("device_of_host", self.device_part().map(|(_, part)| part)),
            ("worst_offloaded", self.worst().map(|call| call.quotient)),
            ("error_of_tolerance", errors.max_by(f64::total_cmp)),
        ];
        numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name.to_owned(), number?)))
            .collect()
    }
}

/// Seconds, or that there are none.
fn seconds(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.3}"))
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = match (self.identical, self.difference) {
            (Some(true), _) => "identical".into(),
            (Some(false), _) => "DIFFERENT".into(),
            (None, Some(difference)) if self.is_right() => format!("{difference:.1e}"),
            (None, Some(difference)) => format!("WRONG {difference:.1e}"),
            (None, None) => "-".into(),
        };
        write!(
            f,
            "{:<30}{:>9} {:>6} {:>8} {:>7} {:>8} {:>8} {:>9} {:>9} {:>7} {result:>10}",
            self.program,
            self.size,
            self.calls,
            self.pages_to_device,
            self.pages_back,
            seconds(Some(self.engine_seconds)),
            seconds(Some(self.coax_seconds)),
            seconds(self.cpu_seconds),
            seconds(self.same_lapack_seconds),
            self.speedup()
                .map_or("-".into(), |times| format!("{times:.1}")),
        )
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = format!("{}×{}×{}", self.m, self.n, self.k);
        let there = if self.there { " there" } else { "" };
        write!(
            f,
            "{:<6}{shape:>14} in {:<8}{:>3}/{:<3}{:>10.3} {:>10.3} {:>10.3} {:>7.2}{there}",
            self.call,
            self.ld,
            self.offloaded,
            self.rounds,
            self.coax_seconds * 1e3,
            self.call_seconds * 1e3,
            self.cpu_seconds * 1e3,
            self.quotient
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Seconds with the device and as the distribution has it (CPU), with its reference LAPACK (CPU²)\n"
        )?;
        writeln!(
            f,
            "  {:<30}{:>9} {:>6} {:>8} {:>7} {:>8} {:>8} {:>9} {:>9} {:>7} {:>10}",
            "program",
            "size",
            "calls",
            "to dev.",
            "back",
            "engines",
            "coax",
            "CPU",
            "CPU²",
            "times",
            "result"
        )?;
        for program in &self.programs {
            writeln!(f, "  {program}")?;
        }
        if let Some((seconds, part)) = self.device_part() {
            writeln!(
                f,
                "\nProduct of {0}²: {seconds:.2} s of {1} engines, {2:.2} s of the host's BLAS, {part:.2} times",
                self.host.size, self.engines, self.host.seconds
            )?;
            if let Some(load) = self.host.load {
                writeln!(f, "The host's load average was {load:.2} then")?;
            }
        }
        for (title, calls) in [
            ("Calls around the threshold", &self.calls),
            (
                "Levels 1 and 2, with the matrices in system memory and with the device (there)",
                &self.levels,
            ),
        ] {
            writeln!(
                f,
                "\n{title}: milliseconds, `of` rounds offloaded\n\n  {:<20} {:<11}{:>7}{:>10} {:>10} {:>10} {:>7}",
                "call", "in", "of", "coax", "its call", "CPU", "ratio"
            )?;
            for call in calls {
                writeln!(f, "  {call}")?;
            }
        }
        if let Some(worst) = self.worst() {
            writeln!(f, "\nSlowest offload:\n  {worst}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let host = HostProduct {
            size: 2048,
            seconds: 2.0,
            load: Some(0.5),
        };
        let mut report = Report::new(2, host);
        for line in [
            r#"{"program":{"program":"numpy A @ B","size":1024,"work":"product","calls":1,"commands":9,
                "pages_to_device":6144,"pages_back":2048,"bytes_in_place":0,"engine_seconds":1.0,
                "calls_seconds":0.5,"coax_seconds":2.0,"cpu_seconds":30.0,"difference":1e-15,
                "tolerance":1e-13}}"#,
            r#"{"program":{"program":"numpy A @ B","size":2048,"work":"product","calls":1,"commands":9,
                "pages_to_device":6144,"pages_back":2048,"bytes_in_place":0,"engine_seconds":6.0,
                "calls_seconds":4.0,"coax_seconds":5.0,"difference":1e-13,"tolerance":2e-13}}"#,
        ] {
            assert!(report.line(line).is_some(), "{line}");
        }
        for (offloaded, quotient) in [(0, 1.4), (7, 1.05), (7, 0.3)] {
            let line = format!(
                r#"{{"call":{{"call":"dgemm","m":128,"n":128,"k":128,"ld":128,"there":false,"rounds":7,
                "offloaded":{offloaded},"coax_seconds":0.01,"call_seconds":0.005,"cpu_seconds":0.02,
                "quotient":{quotient},"difference":0,"seen":1}}}}"#
            );
            assert!(report.line(&line).is_some(), "{line}");
        }
        report
    }

    #[test]
    fn goals_get_the_worst_of_what_was_offloaded_and_the_engines_share() {
        let measured = report().measured();
        let number = |name: &str| measured.get(name).copied();
        assert_eq!(number("product_1024"), Some(15.0));
        assert_eq!(number("product_2048"), None);
        assert_eq!(number("device_of_host"), Some(1.5));
        assert_eq!(number("worst_offloaded"), Some(1.05));
        assert_eq!(number("error_of_tolerance"), Some(0.5));
    }

    #[test]
    fn a_digest_that_differs_misses_the_goal() {
        let mut report = report();
        let line = report.line(
            r#"{"program":{"program":"coaxctl sha256","size":4096,"calls":1,"commands":1,
                "pages_to_device":0,"pages_back":0,"bytes_in_place":4096,"engine_seconds":0.1,
                "coax_seconds":0.1,"cpu_seconds":0.2,"identical":false}}"#,
        );
        assert!(line.is_some());
        assert_eq!(
            report.measured().get("error_of_tolerance"),
            Some(&f64::INFINITY)
        );
        assert!(report.to_string().contains("DIFFERENT"));
    }

    #[test]
    fn other_lines_are_no_measurements() {
        assert_eq!(report().line("hello"), None);
        assert_eq!(report().line(r#"{"other":{}}"#), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the environment says, read once when the library is loaded.
// UNSAFETY: the kernel is asked whether the program has raised rights.
#![expect(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::message;

/// Where something is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nowhere.
    None,
    /// A line on standard error.
    Line,
    /// A line of JSON behind what is in this file.
    Json(PathBuf),
}

/// Settings of this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The device's file.
    pub device: PathBuf,
    /// Operations from which calls go to the device, if they are not to be chosen by measurement.
    pub least_flops: Option<f64>,
    /// Where the report goes.
    pub report: Report,
    /// Where it is told of each call what was decided, and why.
    pub why: Report,
}

/// The settings; those of the environment at the first call.
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings::from(variable))
}

impl Settings {
    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let report = |name: &str| match variable(name) {
            None => Report::None,
            Some(value) if value.is_empty() || value == "0" => Report::None,
            Some(value) if value == "1" => Report::Line,
            Some(file) => Report::Json(file.into()),
        };
        let least_flops = variable("COAX_BLAS_MIN_FLOPS").and_then(|text| {
            let number = text.to_str().and_then(|text| text.parse().ok());
            if number.is_none() {
                message::say(format_args!(
                    "COAX_BLAS_MIN_FLOPS={text:?} is no number, and is ignored"
                ));
            }
            number
        });
        let device = variable("COAX_BLAS_DEVICE").unwrap_or_else(|| coax::DEFAULT_DEVICE.into());
        Self {
            device: device.into(),
            least_flops,
            report: report("COAX_BLAS_STATS"),
            why: report("COAX_BLAS_WHY"),
        }
    }
}

/// A variable of the environment, but not in a program with more rights than who started it.
fn variable(name: &str) -> Option<OsString> {
    // SAFETY: Looks up a number that the kernel gave the process.
    let raised = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if raised {
        return None;
    }
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Settings {
        Settings::from(|asked| (asked == name).then(|| value.into()))
    }

    #[test]
    fn nothing_set_means_measuring_and_no_report() {
        let settings = Settings::from(|_| None);
        assert_eq!(settings.report, Report::None);
        assert_eq!(settings.least_flops, None);
        assert_eq!(settings.device, PathBuf::from("/dev/coax0"));
    }

    #[test]
    fn report_is_a_line_or_goes_to_a_file() {
        let name = "COAX_BLAS_STATS";
        assert_eq!(with(name, "0").report, Report::None);
        assert_eq!(with(name, "1").report, Report::Line);
        let file = Report::Json("/tmp/blas.json".into());
        assert_eq!(with(name, "/tmp/blas.json").report, file);
        let why = with("COAX_BLAS_WHY", "1");
        assert_eq!((why.report, why.why), (Report::None, Report::Line));
    }

    #[test]
    fn least_flops_that_is_no_number_is_ignored() {
        let name = "COAX_BLAS_MIN_FLOPS";
        assert_eq!(with(name, "1e6").least_flops, Some(1e6));
        assert_eq!(with(name, "many").least_flops, None);
    }
}

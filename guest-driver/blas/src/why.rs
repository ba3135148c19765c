// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tells of each call what was decided, for what reason, and what became of it, if the settings say so.
//!
//! Calls that are too small by their operations alone are told of in sum, when the process ends: programs
//! make millions of them.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::decision::{self, Estimate, PagesKnown};
use crate::message;
use crate::operation::Size;
use crate::outcome::{Outcome, Reason};
use crate::routine::Routine;
use crate::settings::{settings, Report};

/// Calls that were too small, by routine.
static SMALL: [AtomicU64; Routine::COUNT] = [const { AtomicU64::new(0) }; Routine::COUNT];

/// Tells of a call that the device has done, in so many seconds, or that the CPU is about to do.
pub fn tell(
    routine: Routine,
    size: Option<Size>,
    tried: &Result<(Outcome, f64), Reason>,
    estimate: Option<&Estimate>,
) {
    let settings = settings();
    if settings.why == Report::None {
        return;
    }
    if size.is_some_and(|size| decision::by_size(size.flops(), settings.least_flops).is_some()) {
        SMALL[routine as usize].fetch_add(1, Relaxed);
        return;
    }
    match &settings.why {
        Report::None => {}
        Report::Line => {
            let device = settings.device.display().to_string();
            let line = line(routine, size, tried, estimate, &device);
            message::say(format_args!("{line}"));
        }
        Report::Json(path) => message::append(path, json(routine, size, tried, estimate)),
    }
}

/// Tells of the calls that were too small.
pub fn tell_of_small() {
    let counts = Routine::ALL.into_iter().zip(&SMALL);
    for (routine, count) in counts.map(|(routine, count)| (routine.name(), count.load(Relaxed))) {
        match &settings().why {
            _ if count == 0 => {}
            Report::None => {}
            Report::Line => message::say(format_args!(
                "{routine}: {count} calls on the CPU: too few operations"
            )),
            Report::Json(path) => {
                let pid = std::process::id();
                message::append(
                    path,
                    format!("{{\"pid\":{pid},\"routine\":\"{routine}\",\"small\":{count}}}"),
                );
            }
        }
    }
}

/// A child of `fork` begins to count.
pub fn forget_in_child() {
    for count in &SMALL {
        count.store(0, Relaxed);
    }
}

/// A call as a line of text.
fn line(
    routine: Routine,
    size: Option<Size>,
    tried: &Result<(Outcome, f64), Reason>,
    estimate: Option<&Estimate>,
    device: &str,
) -> String {
    let mut line = routine.name().to_owned();
    if let Some(size) = size {
        let _ = write!(line, " {size}");
    }
    let _ = match tried {
        Ok((outcome, seconds)) => {
            let _ = match outcome.failure {
                None => write!(line, ": on the device"),
                Some(reason) if outcome.on_device == 0 => {
                    write!(
                        line,
                        ": on the CPU, as the device failed ({})",
                        reason.name()
                    )
                }
                Some(reason) => write!(
                    line,
                    ": begun on the device, finished on the CPU ({})",
                    reason.name()
                ),
            };
            write!(line, ", {seconds:.4} s")
        }
        Err(reason) => write!(line, ": on the CPU, {}", because(*reason, size, device)),
    };
    let Some(estimate) = estimate else {
        return line;
    };
    let Estimate {
        device,
        delay,
        cpu,
        pages,
        moving,
        away,
        pages_known,
        delayed,
    } = estimate;
    if !device.is_finite() {
        line.push_str("; the device could not be measured");
        return line;
    }
    let _ = write!(line, "; expected {device:.4} s on the device");
    if *delayed {
        let _ = write!(line, ", of late {delay:.1} times as much");
    }
    let _ = write!(line, ", {cpu:.4} s on the CPU; {pages:.0} pages");
    let _ = match pages_known {
        PagesKnown::NeedNot => write!(line, ", should all have to move"),
        PagesKnown::NoUse => write!(line, ", and not sooner done wherever they are"),
        PagesKnown::Asked => {
            write!(
                line,
                ", {moving:.0} to move and {away:.0} that the CPU would fetch"
            )
        }
    };
    line
}

/// Why a call is the CPU's.
fn because(reason: Reason, size: Option<Size>, device: &str) -> String {
    match reason {
        Reason::Small => "nothing was measured yet".to_owned(),
        Reason::Slower => "which is sooner done".to_owned(),
        Reason::Arguments if size.is_none() => "an argument is wrong".to_owned(),
        Reason::Arguments => {
            "matrices overlap or are misaligned, or there is nothing to do (alpha 0)".to_owned()
        }
        Reason::Absent => format!("no device ({device})"),
        reason => reason.name().to_owned(),
    }
}

/// A call as a line of JSON.
fn json(
    routine: Routine,
    size: Option<Size>,
    tried: &Result<(Outcome, f64), Reason>,
    estimate: Option<&Estimate>,
) -> String {
    let mut json = format!(
        "{{\"pid\":{},\"routine\":\"{}\"",
        std::process::id(),
        routine.name()
    );
    if let Some(Size { m, n, k, .. }) = size {
        let _ = write!(json, ",\"m\":{m},\"n\":{n},\"k\":{k}");
    }
    let _ = match tried {
        Ok((outcome, seconds)) => {
            let by = if outcome.on_device == 0 {
                "cpu"
            } else {
                "device"
            };
            let _ = write!(json, ",\"by\":\"{by}\",\"seconds\":{seconds:.6}");
            outcome.failure.map_or(Ok(()), |reason| {
                write!(json, ",\"failure\":\"{}\"", reason.name())
            })
        }
        Err(reason) => write!(json, ",\"by\":\"cpu\",\"reason\":\"{}\"", reason.name()),
    };
    // A device that could not be measured has no numbers, and JSON none for it.
    if let Some(estimate) = estimate.filter(|estimate| estimate.device.is_finite()) {
        let Estimate {
            device,
            delay,
            cpu,
            pages,
            moving,
            away,
            pages_known,
            delayed,
        } = estimate;
        let asked = *pages_known == PagesKnown::Asked;
        let _ = write!(
            json,
            ",\"expected_device_s\":{device:e},\"delay\":{delay:.3},\"delayed\":{delayed},\"expected_cpu_s\":{cpu:e},\
             \"pages\":{pages:.0},\"pages_asked_for\":{asked},\"pages_to_move\":{moving:.0},\"pages_away\":{away:.0}"
        );
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routine::Kind;

    const SIZE: Option<Size> = Some(Size {
        kind: Kind::Gemm,
        m: 300,
        n: 200,
        k: 100,
    });
    const ESTIMATE: Estimate = Estimate {
        device: 0.25,
        delay: 1.5,
        cpu: 2.0,
        pages: 400.0,
        moving: 100.0,
        away: 300.0,
        pages_known: PagesKnown::Asked,
        delayed: false,
    };

    fn told(
        tried: Result<(Outcome, f64), Reason>,
        size: Option<Size>,
        estimate: Option<&Estimate>,
    ) -> (String, String) {
        let routine = Routine::Dgemm;
        (
            line(routine, size, &tried, estimate, "/dev/coax7"),
            json(routine, size, &tried, estimate),
        )
    }

    #[test]
    fn call_of_the_device_is_told_with_what_was_expected() {
        let done = Outcome {
            on_device: 2,
            failure: None,
        };
        let (line, json) = told(Ok((done, 0.5)), SIZE, Some(&ESTIMATE));
        assert_eq!(
            line,
            "dgemm 300×200×100: on the device, 0.5000 s; expected 0.2500 s on the device, 2.0000 s on the CPU; \
             400 pages, 100 to move and 300 that the CPU would fetch"
        );
        let expected = "\"routine\":\"dgemm\",\"m\":300,\"n\":200,\"k\":100,\"by\":\"device\",\"seconds\":0.500000,\
            \"expected_device_s\":2.5e-1,\"delay\":1.500,\"delayed\":false,\"expected_cpu_s\":2e0,\"pages\":400,\
            \"pages_asked_for\":true,\"pages_to_move\":100,\"pages_away\":300}";
        assert!(json.ends_with(expected), "{json}");
    }

    #[test]
    fn call_that_the_cpu_finished_says_so() {
        let half = |on_device| Outcome {
            on_device,
            failure: Some(Reason::Fault),
        };
        let (line, json) = told(Ok((half(1), 0.5)), SIZE, None);
        assert!(line.ends_with("begun on the device, finished on the CPU (fault), 0.5000 s"));
        assert!(json.ends_with("\"by\":\"device\",\"seconds\":0.500000,\"failure\":\"fault\"}"));
        let (line, json) = told(Ok((half(0), 0.5)), SIZE, None);
        assert!(line.ends_with("on the CPU, as the device failed (fault), 0.5000 s"));
        assert!(json.contains("\"by\":\"cpu\""));
    }

    #[test]
    fn call_of_the_cpu_says_why() {
        let slower = |estimate: Estimate| told(Err(Reason::Slower), SIZE, Some(&estimate)).0;
        let late = slower(Estimate {
            delayed: true,
            pages_known: PagesKnown::NeedNot,
            ..ESTIMATE
        });
        assert!(late.contains(
            "on the CPU, which is sooner done; expected 0.2500 s on the device, of late 1.5 times"
        ));
        let useless = Estimate {
            device: f64::INFINITY,
            ..ESTIMATE
        };
        assert!(slower(useless).ends_with("sooner done; the device could not be measured"));
        let json = told(Err(Reason::Slower), SIZE, Some(&useless)).1;
        assert!(
            json.ends_with("\"by\":\"cpu\",\"reason\":\"slower\"}"),
            "{json}"
        );
        for (reason, size, expected) in [
            (Reason::Absent, SIZE, "no device (/dev/coax7)"),
            (Reason::Small, SIZE, "nothing was measured yet"),
            (
                Reason::Arguments,
                None,
                "dgemm: on the CPU, an argument is wrong",
            ),
            (Reason::Arguments, SIZE, "nothing to do (alpha 0)"),
        ] {
            let (line, _) = told(Err(reason), size, None);
            assert!(line.ends_with(expected), "{line}");
        }
    }
}

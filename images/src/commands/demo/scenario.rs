// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A scenario of the demonstration, as the guest tells it in one line of JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use coax_images::job::Mode;

/// Scenarios that must be in the report of each mode.
const SCENARIOS: [&str; 4] = ["hash", "structures", "gemm", "file"];

/// One scenario, as the guest told it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// How the driver used device memory.
    pub mode: String,
    /// Who translated for the device.
    pub translation: String,
    /// Pages that it works on.
    pub pages: u64,
    /// How many of them were in device memory.
    pub device_pages: DevicePages,
    /// Page requests of the device.
    pub page_requests: u64,
    /// Result by independent means.
    pub expected: Value,
    /// Result by the device.
    pub actual: Value,
    /// How long it took.
    pub seconds: f64,
    /// The guest's own judgement, which knows more than the numbers say.
    pub result: String,
    /// Why it failed, and the counters behind the numbers.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Pages in device memory at the four moments of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevicePages {
    /// Before the device touched them.
    pub before: u64,
    /// After it worked on them.
    pub after: u64,
    /// After the CPU passed over them.
    pub after_cpu: u64,
    /// After they were evicted.
    pub after_evict: u64,
}

impl Scenario {
    /// Whether the guest found nothing wrong and the results agree.
    pub fn passed(&self) -> bool {
        self.result == "pass" && self.expected == self.actual
    }
}

/// Scenarios that the guest did not tell, each with its mode.
pub fn missing(told: &[Scenario], modes: &[Mode]) -> Vec<(Mode, &'static str)> {
    let all = modes
        .iter()
        .flat_map(|mode| SCENARIOS.map(|name| (*mode, name)));
    let is_missing = |(mode, name): &(Mode, &str)| {
        let mut told = told.iter();
        !told.any(|scenario| scenario.mode == mode.name() && scenario.name == *name)
    };
    all.filter(is_missing).collect()
}

/// Two lines for people.
pub fn describe(scenario: &Scenario) -> String {
    let what = match scenario.name.as_str() {
        "hash" => "a file in malloc'ed memory, hashed by the device",
        "structures" => "a list and a tree of malloc'ed nodes, walked by the device",
        "gemm" => "malloc'ed matrices, multiplied by the device",
        "file" => "a shared mapping of the file, read by the device in place",
        _ => "",
    };
    let verdict = if scenario.passed() { "ok" } else { "FAIL" };
    let pages = &scenario.device_pages;
    let mut text = format!(
        "  {:<12}{verdict}: {what}, {:.1} s\n{:14}{} pages; on the device {} before, {} after, {} \
         after the CPU's pass, {} after evict; {} page requests",
        scenario.name,
        scenario.seconds,
        "",
        scenario.pages,
        pages.before,
        pages.after,
        pages.after_cpu,
        pages.after_evict,
        scenario.page_requests
    );
    if !scenario.passed() {
        text += &format!("\n{:14}expected {}", "", scenario.expected);
        text += &format!("\n{:14}actual   {}", "", scenario.actual);
        if let Some(complaints) = scenario.more.get("complaints") {
            text += &format!("\n{:14}{complaints}", "");
        }
    }
    text
}

/// From the kernel's start to the first page that moved, as the driver counted it.
pub fn first_migration(scenarios: &[Scenario]) -> Option<Duration> {
    let told = scenarios.iter().filter_map(|scenario| {
        scenario
            .more
            .get("counters")?
            .get("boot_to_first_migration_ns")?
            .as_u64()
    });
    told.filter(|nanoseconds| *nanoseconds > 0)
        .min()
        .map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"name":"hash","mode":"private","translation":"virtqueue","pages":10,
        "device_pages":{"before":0,"after":10,"after_cpu":0,"after_evict":0},
        "page_requests":2,"expected":"ab","actual":"ab","seconds":1.5,"result":"pass",
        "counters":{"boot_to_first_migration_ns":3000000000}}"#;

    fn scenario() -> Scenario {
        serde_json::from_str(LINE).expect("as the guest writes it")
    }

    #[test]
    fn a_wrong_result_fails_whatever_the_guest_says() {
        assert!(scenario().passed());
        assert!(!Scenario {
            actual: "cd".into(),
            ..scenario()
        }
        .passed());
        assert!(!Scenario {
            result: "fail".into(),
            ..scenario()
        }
        .passed());
    }

    #[test]
    fn scenarios_that_were_not_told_are_missed() {
        let told = [scenario()];
        let others = ["structures", "gemm", "file"].map(|name| (Mode::Private, name));
        assert_eq!(missing(&told, &[Mode::Private]), others);
        let coherent = SCENARIOS.map(|name| (Mode::Coherent, name));
        let both = [&others[..], &coherent].concat();
        assert_eq!(missing(&told, &[Mode::Private, Mode::Coherent]), both);
    }

    #[test]
    fn the_guests_fields_all_reach_the_report() {
        let text = serde_json::to_string(&scenario()).expect("plain data");
        for field in ["device_pages", "after_evict", "page_requests", "counters"] {
            assert!(text.contains(field), "{field} is missing in {text}");
        }
        assert_eq!(first_migration(&[scenario()]), Some(Duration::from_secs(3)));
    }
}

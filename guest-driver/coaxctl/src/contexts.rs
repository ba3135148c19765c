// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The contexts of a process: its open device files, as the driver tells of them in
//! `/proc/PID/fdinfo`.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use coax::PageRange;
use serde::Serialize;

use crate::range::intersection;
use crate::report::Advised;

/// Before the name of every line that is the driver's.
const PREFIX: &str = "coax-";

/// An open device file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Context {
    /// Its number on the device.
    pub number: u32,
    /// When pages move.
    pub policy: String,
    /// How many move around a fault.
    pub fault_around: u32,
    /// Ranges with advice.
    pub advised: usize,
    /// Counters by name, in the driver's order.
    pub counts: Vec<(String, u64)>,
    #[serde(skip)]
    advice: Vec<(PageRange, Advised)>,
}

impl Context {
    /// The advice for parts of a range.
    pub fn advice(&self, range: PageRange) -> impl Iterator<Item = Advised> + '_ {
        self.advice.iter().filter_map(move |(of, advised)| {
            let part = intersection(*of, range)?;
            Some(Advised {
                range: part.to_string(),
                ..advised.clone()
            })
        })
    }
}

/// The contexts that a process has of the device with this file, by number. Two descriptors of one
/// open file are one context.
pub fn of(pid: u32, device: &Path) -> Result<Vec<Context>> {
    let folder = format!("/proc/{pid}/fd");
    let mut contexts = Vec::new();
    let entries = fs::read_dir(&folder).with_context(|| format!("Cannot list {folder}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("Cannot list {folder}"))?;
        // The process goes on, and closes files meanwhile.
        if !fs::read_link(entry.path()).is_ok_and(|target| target == device) {
            continue;
        }
        let path = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text.with_context(|| format!("Cannot read {path}"))?,
        };
        contexts.push(parse(&text).with_context(|| format!("Cannot understand {path}"))?);
    }
    contexts.sort_by_key(|context| context.number);
    contexts.dedup_by_key(|context| context.number);
    Ok(contexts)
}

fn parse(text: &str) -> Result<Context> {
    let mut context = Context::default();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix(PREFIX) {
            take(&mut context, line).with_context(|| format!("Malformed line {line:?}"))?;
        }
    }
    for (_, advised) in &mut context.advice {
        advised.context = context.number;
    }
    Ok(context)
}

/// Takes a line; names that a later driver may have are left alone.
fn take(context: &mut Context, line: &str) -> Option<()> {
    let (name, value) = line.split_once(":\t")?;
    match name {
        "context" => context.number = value.parse().ok()?,
        "policy" => context.policy = value.to_owned(),
        "fault-around" => context.fault_around = value.parse().ok()?,
        "advised" => context.advised = value.parse().ok()?,
        "count" => {
            let (name, value) = value.split_once(' ')?;
            context.counts.push((name.to_owned(), value.parse().ok()?));
        }
        "advice" => {
            let mut words = value.split(' ');
            let (start, end) = words.next()?.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let length = u64::from_str_radix(end, 16).ok()?.checked_sub(start)?;
            let advised = Advised {
                context: 0,
                range: String::new(),
                policy: words.next()?.to_owned(),
                fault_around: words.next()?.parse().ok()?,
            };
            context
                .advice
                .push((PageRange::new(start, length), advised));
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pos:\t0
flags:\t02100002
coax-context:\t7
coax-policy:\ton_fault
coax-fault-around:\t16
coax-count:\tto_device 5120
coax-count:\tto_system 12
coax-advised:\t1
coax-advice:\t7f0000001000-7f0000003000 never 0
coax-later:\twhatever
";

    #[test]
    fn lines_of_the_driver_are_read_and_others_left_alone() {
        let context = parse(TEXT).expect("well-formed");
        assert_eq!((context.number, context.fault_around), (7, 16));
        assert_eq!((context.policy.as_str(), context.advised), ("on_fault", 1));
        assert_eq!(context.counts[0], ("to_device".to_owned(), 5120));
        assert!(parse("coax-advice:\t7f-zz never 0").is_err());
    }

    #[test]
    fn advice_is_told_of_the_part_asked_for() {
        let context = parse(TEXT).expect("well-formed");
        let part = PageRange::new(0x7f00_0000_2000, 0x10000);
        let advice: Vec<_> = context.advice(part).collect();
        let [advised] = &advice[..] else {
            panic!("{advice:?}");
        };
        assert_eq!(advised.range, "7f0000002000-7f0000003000");
        assert_eq!((advised.context, advised.policy.as_str()), (7, "never"));
        assert_eq!(context.advice(PageRange::new(0x1000, 0x1000)).count(), 0);
    }
}

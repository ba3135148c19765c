// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What coaxctl prints, as text or JSON.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use coax::{
    Info, Migrated, PageRange, Policy, Residency, Stats, MODE_COHERENT, MODE_NUMA, MODE_PRIVATE,
    NO_NODE,
};
use serde::Serialize;
use serde_json::{json, Map, Value};

use crate::contexts::Context;
use crate::maps::Mapping;

/// Bytes of a page in MiB.
const PAGES_PER_MIB: f64 = 256.0;

/// An answer in both forms.
#[derive(Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// Pages of one mapping.
#[derive(Debug, Serialize)]
pub struct MappingResidency {
    range: String,
    rights: String,
    name: String,
    none: u64,
    system: u64,
    device: u64,
    file: u64,
    /// What programs said of parts of it.
    advice: Vec<Advised>,
}

/// What was said of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advised {
    /// Number of the context that was told.
    pub context: u32,
    /// Where.
    pub range: String,
    /// When pages move.
    pub policy: String,
    /// How many move around a fault; 0: as many as in the rest of the context.
    pub fault_around: u32,
}

impl MappingResidency {
    /// The pages of a part of a mapping.
    pub fn new(
        mapping: &Mapping,
        range: PageRange,
        residency: Residency,
        advice: Vec<Advised>,
    ) -> Self {
        let Residency {
            none,
            system,
            device,
            file,
        } = residency;
        let rights = mapping.rights.clone();
        // For people and for JSON, which is text.
        let name = mapping.name.to_string_lossy().into_owned();
        Self {
            range: range.to_string(),
            rights,
            name,
            none,
            system,
            device,
            file,
            advice,
        }
    }
}

impl Display for MappingResidency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            range,
            rights,
            name,
            none,
            system,
            device,
            file,
            advice,
        } = self;
        let line =
            format!("{range:<29} {rights:4} {none:>9} {system:>9} {device:>9} {file:>9} {name}");
        f.write_str(line.trim_end())?;
        for Advised {
            context,
            range,
            policy,
            fault_around,
        } in advice
        {
            let around = match fault_around {
                0 => String::new(),
                pages => format!(", {pages} pages around a fault"),
            };
            write!(f, "\n  {range} {policy}{around} (context {context})")?;
        }
        Ok(())
    }
}

/// Device memory mode in words.
pub fn mode_name(info: &Info) -> &'static str {
    match info.mode {
        MODE_PRIVATE => "private",
        MODE_COHERENT => "coherent",
        MODE_NUMA => "numa",
        _ => "unknown",
    }
}

/// A policy in words, as the driver writes them.
fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::OnFault => "on_fault",
        Policy::OnRequest => "on_request",
        Policy::Never => "never",
    }
}

/// What the device is.
pub fn info(device: &str, info: &Info) -> Report {
    let mode = mode_name(info);
    let mib = |pages: u64| pages as f64 / PAGES_PER_MIB;
    let first = match info.first_pfn {
        0 => "not shown to this user".to_owned(),
        pfn => format!("{pfn:#x}"),
    };
    let policy = Policy::from_number(info.policy).map_or("unknown", policy_name);
    let node = (info.node != NO_NODE).then_some(info.node);
    let of_node = node.map_or(String::new(), |node| format!(", node {node}"));
    let text = format!(
        "device          {device}\n\
         mode            {mode}{of_node}\n\
         memory          {} pages ({:.1} MiB)\n\
         free            {} pages ({:.1} MiB)\n\
         first frame     {first}\n\
         contexts        at most {}\n\
         command queues  {}\n\
         first policy    {policy}\n\
         ioctl version   {}",
        info.device_pages,
        mib(info.device_pages),
        info.free_pages,
        mib(info.free_pages),
        info.max_contexts,
        info.command_queues,
        info.version,
    );
    let json = json!({
        "device": device,
        "mode": mode,
        "node": node,
        "device_pages": info.device_pages,
        "free_pages": info.free_pages,
        "first_pfn": info.first_pfn,
        "max_contexts": info.max_contexts,
        "command_queues": info.command_queues,
        "policy": policy,
        "version": info.version,
    });
    Report { text, json }
}

/// The counters.
pub fn stats(stats: &Stats) -> Report {
    let mut text = String::new();
    let mut json = Map::new();
    // The context is the one that coaxctl opened to ask; its counters tell nothing.
    let driver: Vec<_> = stats
        .driver_counters()
        .filter(|(name, _)| !name.starts_with("context_"))
        .collect();
    for (part, counters) in [
        ("driver", driver),
        ("device", stats.device_counters().collect()),
    ] {
        for (name, value) in &counters {
            text.push_str(&format!("{part:6}  {name:20} {value:>14}\n"));
        }
        let object = counters
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()));
        json.insert(part.to_owned(), Value::Object(object.collect()));
    }
    Report {
        text: text.trim_end().to_owned(),
        json: json.into(),
    }
}

/// The pages of a process.
pub fn residency(pid: u32, mappings: &[MappingResidency], contexts: &[Context]) -> Report {
    let sum = |of: fn(&MappingResidency) -> u64| mappings.iter().map(of).sum();
    let total = MappingResidency {
        range: "total".to_owned(),
        rights: String::new(),
        name: String::new(),
        none: sum(|m| m.none),
        system: sum(|m| m.system),
        device: sum(|m| m.device),
        file: sum(|m| m.file),
        advice: Vec::new(),
    };
    let mut text = format!(
        "{:<29} {:4} {:>9} {:>9} {:>9} {:>9} mapping\n",
        "range", "", "none", "system", "device", "file"
    );
    for line in mappings.iter().chain([&total]) {
        text.push_str(&format!("{line}\n"));
    }
    for context in contexts {
        let Context {
            number,
            policy,
            fault_around,
            advised,
            counts,
            ..
        } = context;
        text.push_str(&format!(
            "context {number}: {policy}, {fault_around} pages around a fault, ranges with advice: {advised}\n"
        ));
        for (name, value) in counts {
            text.push_str(&format!("  {name:20} {value:>14}\n"));
        }
    }
    let json = json!({
        "pid": pid,
        "mappings": mappings,
        "contexts": contexts,
        "total": {
            "none": total.none,
            "system": total.system,
            "device": total.device,
            "file": total.file,
        },
    });
    Report {
        text: text.trim_end().to_owned(),
        json,
    }
}

/// What moving pages came to.
pub fn migration(pid: u32, migrated: &Migrated, vanished: u64) -> Report {
    let Migrated {
        moved,
        already,
        left,
    } = migrated;
    let mut text = format!("{moved} pages moved, {already} already there, {left} left in place");
    if vanished > 0 {
        text.push_str(&format!("; {vanished} mappings went away meanwhile"));
    }
    let json = json!({
        "pid": pid,
        "moved": moved,
        "already": already,
        "left": left,
        "vanished_mappings": vanished,
    });
    Report { text, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residency_adds_up() {
        let mapping = Mapping::for_test(0x1000, 0x5000, "[heap]");
        let residency = Residency {
            none: 1,
            system: 1,
            device: 2,
            file: 0,
        };
        let advised = Advised {
            context: 3,
            range: "2000-3000".to_owned(),
            policy: "never".to_owned(),
            fault_around: 0,
        };
        let line = MappingResidency::new(&mapping, mapping.range, residency, vec![advised]);
        let other = MappingResidency::new(&mapping, mapping.range, residency, Vec::new());
        let report = super::residency(7, &[line, other], &[]);
        assert_eq!(report.json["total"]["device"], 4);
        assert_eq!(report.json["mappings"][0]["range"], "1000-5000");
        assert_eq!(report.json["mappings"][0]["advice"][0]["policy"], "never");
        assert_eq!(report.text.lines().count(), 5);
        assert!(report.text.contains("  2000-3000 never (context 3)"));
    }
}

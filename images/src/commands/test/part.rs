// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What this machine runs of the suites: all, or a part by `--partition` or the environment.
//!
//! `seconds.json` has what tests took, by their full names, as `coax report seconds` makes it of a run; for a
//! VM it is the start, under the name of its path. So parts take about the same time, and are the same on
//! every machine.

use std::collections::BTreeMap;

use anyhow::{anyhow, Result};
use coax_program::errln;
use coax_results::partition::{Item, Partition};

use crate::cli::Test;

/// What tests took.
const SECONDS: &str = include_str!("seconds.json");
/// What a test takes that the table does not have, and the start of its VM.
const UNKNOWN: (f64, f64) = (2.0, 25.0);
/// What a step takes in which a compiler is at work.
const UNKNOWN_BUILD: f64 = 120.0;

/// What this machine runs.
#[derive(Debug, Default)]
pub struct Part {
    partition: Option<Partition>,
    /// Full names, in the order of the whole run; all if absent.
    names: Option<Vec<String>>,
}

impl Part {
    /// The part that the option or the environment names, of the tests that `items` lists, by name and by what
    /// is started for them, in their order.
    ///
    /// # Errors
    ///
    /// The environment is wrong, or the tests cannot be listed.
    pub fn of(
        options: &Test,
        items: impl FnOnce() -> Result<Vec<(String, String)>>,
    ) -> Result<Self> {
        let partition = match options.partition {
            Some(partition) => Some(partition),
            None => {
                let named = Partition::from_environment(|name| std::env::var(name).ok());
                let named = named.map_err(|error| anyhow!("Which part of the tests: {error}"))?;
                if let Some((partition, variables)) = &named {
                    errln!("coax: {partition}, by {variables}");
                }
                named.map(|(partition, _)| partition)
            }
        };
        let Some(partition) = partition else {
            return Ok(Part::default());
        };
        let seconds = Seconds::read()?;
        let items: Vec<Item> = items()?
            .into_iter()
            .map(|(group, name)| seconds.item(group, name))
            .collect();
        let range = partition.slice(&items);
        let names = items.into_iter().skip(range.start).take(range.len());
        Ok(Part {
            partition: Some(partition),
            names: Some(names.map(|item| item.name).collect()),
        })
    }

    /// Which part it is, if it is one.
    pub fn partition(&self) -> Option<Partition> {
        self.partition
    }

    /// Whether the test of this full name belongs to it.
    pub fn has(&self, name: &str) -> bool {
        let names = self.names.as_ref();
        names.is_none_or(|names| names.iter().any(|other| other == name))
    }

    /// Full names of what belongs to it, if it is not everything.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Whether something of this path, which may be a test's too, belongs to it.
    pub fn has_some_of(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.names().is_none_or(|names| {
            let mut names = names.iter();
            names.any(|name| name == path || name.starts_with(&below))
        })
    }
}

/// The table.
struct Seconds {
    /// By full name.
    exact: BTreeMap<String, f64>,
    /// By a name without its mode: a case takes about as long in another.
    any_mode: BTreeMap<String, f64>,
}

impl Seconds {
    fn read() -> Result<Self> {
        let exact: BTreeMap<String, f64> = serde_json::from_str(SECONDS)?;
        let any_mode = exact.iter().map(|(name, took)| (without_mode(name), *took));
        Ok(Seconds {
            any_mode: any_mode.collect(),
            exact,
        })
    }

    fn of(&self, name: &str) -> Option<f64> {
        let took = self.exact.get(name);
        took.or_else(|| self.any_mode.get(&without_mode(name)))
            .copied()
    }

    fn item(&self, group: String, name: String) -> Item {
        let alone = group == name;
        let (test, vm) = UNKNOWN;
        let unknown = if name.starts_with("unit/") || name == "driver" {
            UNKNOWN_BUILD
        } else if alone {
            test + vm
        } else {
            test
        };
        Item {
            seconds: self.of(&name).unwrap_or(unknown),
            // What stands alone has its start in its own time.
            start: if alone {
                0.0
            } else {
                self.of(&group).unwrap_or(vm)
            },
            group,
            name,
        }
    }
}

/// The name, whose parts may each begin with a mode, without modes.
fn without_mode(name: &str) -> String {
    let without = |part: &str| {
        let modes = ["private.", "coherent.", "numa."];
        let rest = modes.iter().find_map(|mode| part.strip_prefix(mode));
        rest.unwrap_or(part).to_owned()
    };
    name.split('/').map(without).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The suites that run by default, with as many tests as there were once.
    fn items() -> Vec<Item> {
        const VMS: [(&str, usize); 33] = [
            ("private.standard", 242),
            ("coherent.standard", 221),
            ("numa.standard", 237),
            ("private.small-device", 13),
            ("coherent.small-device", 12),
            ("numa.small-device", 9),
            ("private.two-devices", 5),
            ("coherent.two-devices", 4),
            ("numa.two-devices", 2),
            ("coherent.one-cpu", 1),
            ("private.tree", 28),
            ("coherent.tree", 18),
            ("numa.tree", 19),
            ("private.lifecycle", 27),
            ("coherent.lifecycle", 27),
            ("numa.lifecycle", 30),
            ("private.two-functions", 4),
            ("coherent.two-functions", 4),
            ("numa.two-functions", 4),
            ("private.four-functions", 1),
            ("coherent.four-functions", 2),
            ("numa.four-functions", 2),
            ("private.doomed", 2),
            ("coherent.doomed", 2),
            ("numa.doomed", 2),
            ("private.doomed-stalled", 1),
            ("coherent.doomed-stalled", 1),
            ("numa.doomed-stalled", 1),
            ("private.doomed-moving", 1),
            ("coherent.doomed-moving", 1),
            ("private.doomed-unseen", 1),
            ("coherent.doomed-unseen", 1),
            ("numa.doomed-unseen", 1),
        ];
        let seconds = Seconds::read().expect("a table of numbers");
        let alone = |name: &str| (name.to_owned(), name.to_owned());
        let below = |group: &str, number: usize| (group.to_owned(), format!("{group}/{number}"));
        let unit = [
            "unit/format",
            "unit/lints",
            "unit/documentation",
            "unit/tests",
            "driver",
        ];
        let mut names: Vec<(String, String)> = unit.map(alone).into();
        for (group, count) in VMS {
            names.extend((0..count).map(|number| below(&format!("vm/{group}"), number)));
        }
        names.extend((0..21).map(|number| alone(&format!("vm/run/{number}"))));
        names.extend(["vm/demo/private", "vm/demo/coherent"].map(alone));
        names.extend((0..77).map(|number| below("hmm", number)));
        let items = names.into_iter();
        items
            .map(|(group, name)| seconds.item(group, name))
            .collect()
    }

    fn time(items: &[Item]) -> f64 {
        let mut started = HashSet::new();
        let starts = items.iter().filter(|item| started.insert(&item.group));
        let starts: f64 = starts.map(|item| item.start).sum();
        starts + items.iter().map(|item| item.seconds).sum::<f64>()
    }

    #[test]
    fn none_of_four_parts_takes_more_than_35_percent_of_the_time() {
        let items = items();
        for shard in 1..=4 {
            let part = Partition::new(shard, 4).expect("a part");
            let share = time(&items[part.slice(&items)]) / time(&items);
            assert!(share <= 0.35, "part {shard} takes {share:.2} of the time");
        }
    }

    #[test]
    fn a_case_takes_as_long_as_in_another_mode() {
        assert_eq!(
            without_mode("vm/private.standard/private.fork.a"),
            "vm/standard/fork.a"
        );
        let table = [("vm/private.standard/private.fork.a".to_owned(), 7.0)];
        let seconds = Seconds {
            any_mode: table
                .iter()
                .map(|(name, took)| (without_mode(name), *took))
                .collect(),
            exact: table.into_iter().collect(),
        };
        let item = |group: &str, name: &str| {
            let item = seconds.item(group.into(), name.into());
            (item.seconds, item.start)
        };
        let known = item("vm/numa.standard", "vm/numa.standard/numa.fork.a");
        assert_eq!(known, (7.0, UNKNOWN.1));
        assert_eq!(item("driver", "driver"), (UNKNOWN_BUILD, 0.0));
        let run = "vm/run/run.a";
        assert_eq!(item(run, run), (UNKNOWN.0 + UNKNOWN.1, 0.0));
    }
}

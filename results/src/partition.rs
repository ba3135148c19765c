// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which part of a run a machine has: `slice:M/N`, as cargo-nextest writes it.
//!
//! All tests lie on a line, in the order of the whole run, each as long as the seconds that it takes, the
//! first of a VM with the start of its VM before it. The line is cut into N pieces of the same length, and a test belongs to
//! the piece that its middle is in. So each test is in exactly one part, the order stays, a cut costs at most
//! one more start of a VM, and the parts follow from the list and the seconds alone.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// More than any list of tests is worth.
const MOST_PARTS: u32 = 10_000;

/// Part `shard` of `of`, counted from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Partition {
    shard: u32,
    of: u32,
}

/// A test that lies on the line.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name, for whoever asks for the part.
    pub name: String,
    /// What has to be started before it; tests beside each other share it.
    pub group: String,
    /// Seconds that it takes.
    pub seconds: f64,
    /// Seconds that starting its group takes.
    pub start: f64,
}

impl Partition {
    /// Part `shard` of `of`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the numbers.
    pub fn new(shard: u32, of: u32) -> Result<Self, String> {
        if !(1..=MOST_PARTS).contains(&of) {
            return Err(format!("{of} parts: from 1 to {MOST_PARTS} are possible"));
        }
        if !(1..=of).contains(&shard) {
            return Err(format!(
                "there is no part {shard} of {of}: they are counted from 1"
            ));
        }
        Ok(Partition { shard, of })
    }

    /// Which part it is, counted from 1.
    pub fn shard(self) -> u32 {
        self.shard
    }

    /// How many parts there are.
    pub fn of(self) -> u32 {
        self.of
    }

    /// The part that the environment names: `SHARD_INDEX` of `SHARD_NUMBER`, as jobs of LAVA have them, or
    /// `CI_NODE_INDEX` of `CI_NODE_TOTAL`, GitLab's, with the names of the variables. GitLab sets the second alone for jobs without parts.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or wrong.
    pub fn from_environment(
        value: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<(Self, String)>, String> {
        let value = |name: &str| value(name).filter(|value| !value.is_empty());
        for (index, number, needs_both) in [
            ("SHARD_INDEX", "SHARD_NUMBER", true),
            ("CI_NODE_INDEX", "CI_NODE_TOTAL", false),
        ] {
            let (shard, of) = match (value(index), value(number)) {
                (Some(shard), Some(of)) => (shard, of),
                (Some(_), None) => return Err(format!("{index} is set, and {number} is not")),
                (None, Some(_)) if needs_both => {
                    return Err(format!("{number} is set, and {index} is not"))
                }
                (None, _) => continue,
            };
            let parse = |name: &str, value: &str| {
                let value: Result<u32, _> = value.parse();
                value.map_err(|error| format!("{name}: {error}"))
            };
            let part = Partition::new(parse(index, &shard)?, parse(number, &of)?);
            let part = part.map_err(|error| format!("{index} and {number}: {error}"))?;
            return Ok(Some((part, format!("{index} and {number}"))));
        }
        Ok(None)
    }

    /// The tests of this part.
    pub fn slice(self, items: &[Item]) -> Range<usize> {
        let mut end = 0.0;
        let mut middles = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let is_first = index == 0 || items[index - 1].group != item.group;
            let length = item.seconds + if is_first { item.start } else { 0.0 };
            middles.push(end + length / 2.0);
            end += length;
        }
        let cut = |part: u32| end * f64::from(part) / f64::from(self.of);
        let before = |part: u32| middles.partition_point(|middle| *middle < cut(part));
        // The last piece ends where the list does, however sums are rounded.
        let last = if self.shard == self.of {
            items.len()
        } else {
            before(self.shard)
        };
        before(self.shard - 1)..last
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slice:{}/{}", self.shard, self.of)
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no part: write slice:M/N, such as slice:1/4");
        let numbers = text.strip_prefix("slice:").ok_or_else(wrong)?;
        let (shard, of) = numbers.split_once('/').ok_or_else(wrong)?;
        let number = |word: &str| word.parse::<u32>().map_err(|_ignored| wrong());
        Partition::new(number(shard)?, number(of)?)
    }
}

impl TryFrom<String> for Partition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> Self {
        partition.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(groups: &[(&str, usize, f64)], start: f64) -> Vec<Item> {
        let of_group = |(group, count, seconds): &(&str, usize, f64)| {
            let item = |number| Item {
                name: format!("{group}.{number}"),
                group: (*group).into(),
                seconds: *seconds,
                start,
            };
            (0..*count).map(item).collect::<Vec<_>>()
        };
        groups.iter().flat_map(of_group).collect()
    }

    /// Seconds of a part, with the starts of all its groups.
    fn seconds(items: &[Item]) -> f64 {
        let mut sum = 0.0;
        for (index, item) in items.iter().enumerate() {
            let is_first = index == 0 || items[index - 1].group != item.group;
            sum += item.seconds + if is_first { item.start } else { 0.0 };
        }
        sum
    }

    #[test]
    fn parts_are_disjoint_complete_and_in_order() {
        let lists = [
            items(&[], 1.0),
            items(&[("a", 1, 5.0)], 20.0),
            items(&[("a", 3, 0.0), ("b", 2, 0.0)], 0.0),
            items(&[("a", 300, 0.7), ("b", 1, 400.0), ("c", 90, 3.1)], 20.0),
        ];
        for list in &lists {
            for of in 1..=12 {
                let mut next = 0;
                for shard in 1..=of {
                    let part = Partition::new(shard, of).expect("a part");
                    let range = part.slice(list);
                    assert_eq!(range.start, next, "{part} of {} tests", list.len());
                    assert_eq!(part.slice(list), range, "it is the same again");
                    next = range.end;
                }
                assert_eq!(next, list.len());
            }
        }
    }

    #[test]
    fn no_part_is_longer_than_its_share_a_test_and_a_start() {
        let list = items(
            &[
                ("a", 40, 2.0),
                ("b", 7, 30.0),
                ("c", 1, 15.0),
                ("d", 90, 0.5),
            ],
            20.0,
        );
        let whole = seconds(&list);
        for of in 2..=6 {
            for shard in 1..=of {
                let part = Partition::new(shard, of).expect("a part");
                let took = seconds(&list[part.slice(&list)]);
                let share = whole / f64::from(of) + 30.0 + 20.0;
                assert!(took <= share, "{part}: {took} s of {whole} s");
            }
        }
    }

    #[test]
    fn words_are_those_of_nextest() {
        let part: Partition = "slice:2/4".parse().expect("a part");
        assert_eq!((part.shard(), part.of()), (2, 4));
        assert_eq!(part.to_string(), "slice:2/4");
        for wrong in [
            "2/4",
            "slice:2",
            "slice:0/4",
            "slice:5/4",
            "slice:1/0",
            "hash:1/2",
            "slice:-1/2",
        ] {
            let error = Partition::from_str(wrong).expect_err(wrong);
            assert!(
                error.contains("slice:M/N") || error.contains("part"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_environment_of_lava_and_gitlab_names_a_part() {
        let named = |variables: &'static [(&str, &str)]| {
            let value = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let part = Partition::from_environment(value);
            part.map(|part| part.map(|(part, _)| part.to_string()))
        };
        assert_eq!(named(&[]), Ok(None));
        assert_eq!(named(&[("CI_NODE_TOTAL", "1")]), Ok(None));
        assert_eq!(
            named(&[("SHARD_INDEX", ""), ("SHARD_NUMBER", "")]),
            Ok(None)
        );
        let gitlab = named(&[("CI_NODE_INDEX", "3"), ("CI_NODE_TOTAL", "4")]);
        assert_eq!(gitlab, Ok(Some("slice:3/4".into())));
        let lava = named(&[("SHARD_INDEX", "1"), ("SHARD_NUMBER", "2")]);
        assert_eq!(lava, Ok(Some("slice:1/2".into())));
        for (wrong, word) in [
            (&[("SHARD_NUMBER", "2")] as &[_], "SHARD_INDEX is not"),
            (&[("CI_NODE_INDEX", "2")], "CI_NODE_TOTAL is not"),
            (
                &[("SHARD_INDEX", "0"), ("SHARD_NUMBER", "2")],
                "no part 0 of 2",
            ),
            (
                &[("SHARD_INDEX", "x"), ("SHARD_NUMBER", "2")],
                "SHARD_INDEX: ",
            ),
        ] {
            let error = named(wrong).expect_err("it is wrong");
            assert!(error.contains(word), "{error}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes that come from this one.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The kernel's process that all its threads come from.
const KTHREADD: u32 = 2;
/// Looks after which processes taken for threads of the kernel are looked at again: their numbers
/// are used anew in time.
const LOOKS_TO_FORGET: u32 = 100;

/// Knows this process's descendants.
#[derive(Debug, Default)]
pub struct Descendants {
    kernel: BTreeSet<u32>,
    looks: u32,
}

impl Descendants {
    /// Their numbers at the moment, this process's not among them.
    pub fn look(&mut self) -> Vec<u32> {
        self.looks += 1;
        if self.looks % LOOKS_TO_FORGET == 0 {
            self.kernel.clear();
        }
        let mut parents = BTreeMap::new();
        // Without /proc there is nothing to see.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if self.kernel.contains(&pid) {
                continue;
            }
            // A process can end between two looks.
            let text = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            match parent(&text) {
                Some(KTHREADD) => {
                    self.kernel.insert(pid);
                }
                Some(parent) => {
                    parents.insert(pid, parent);
                }
                None => {}
            }
        }
        descendants_of(std::process::id(), &parents)
    }
}

/// The parent in the text of `/proc/PID/stat`: `PID (NAME) STATE PARENT …`, where the name may
/// contain anything, which need be no text. `None` for a process that has ended and has no memory any more.
fn parent(stat: &[u8]) -> Option<u32> {
    let stat = String::from_utf8_lossy(stat);
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

fn descendants_of(top: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let is_below = |pid: &u32| {
        let mut at = *pid;
        // A chain is no longer than there are processes, even if the picture is blurred.
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(parent) if *parent == top => return true,
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(is_below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_found_behind_names_of_all_kinds() {
        assert_eq!(parent(b"7 (a) b) (c) S 3 7 7 0"), Some(3));
        assert_eq!(parent(b"7 (\xff\xfe) S 3 7 7 0"), Some(3));
        assert_eq!(parent(b"7 (sh) Z 3 7 7 0"), None);
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn descendants_are_children_and_theirs() {
        let parents = BTreeMap::from([(1, 0), (10, 1), (11, 10), (12, 11), (20, 1), (21, 20)]);
        assert_eq!(descendants_of(10, &parents), [11, 12]);
        assert!(descendants_of(12, &parents).is_empty());
    }

    #[test]
    fn a_ring_that_a_reused_number_makes_has_an_end() {
        let parents = BTreeMap::from([(10, 11), (11, 10)]);
        assert!(descendants_of(1, &parents).is_empty());
    }

    #[test]
    fn a_child_of_this_process_is_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("sleep is everywhere");
        let seen = Descendants::default().look();
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        assert!(seen.contains(&child.id()), "{seen:?}");
    }
}

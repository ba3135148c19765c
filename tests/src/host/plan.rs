// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which cases run together.

use std::fmt;

use crate::case::{Entry, Mode, Vm};
use crate::cases;

/// What the user wants run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Cases whose full name contains one of these; all if empty.
    pub filters: Vec<String>,
    /// Only this mode; all if absent.
    pub mode: Option<Mode>,
}

/// Cases that share a VM.
#[derive(Clone, Debug)]
pub struct Group {
    /// Kind of VM.
    pub vm: Vm,
    /// Mode of the driver.
    pub mode: Mode,
    /// Cases, in the order of the table.
    pub entries: Vec<Entry>,
}

impl Group {
    /// Name of a result in this group, unique in a run.
    pub fn result_name(&self, name: &str) -> String {
        format!("{}.{name}", self.mode)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mode, {}", self.mode, self.vm.name())
    }
}

/// The groups of the cases selected, none of them empty.
pub fn groups(selection: &Selection) -> Vec<Group> {
    let mut groups = Vec::new();
    for vm in Vm::ALL {
        for mode in Mode::ALL {
            if selection.mode.is_some_and(|only| only != mode) {
                continue;
            }
            let entries: Vec<Entry> = cases::all()
                .filter(|entry| entry.case.vm == vm && entry.case.modes.contains(&mode))
                .filter(|entry| entry.selected_by(&selection.filters))
                .collect();
            if !entries.is_empty() {
                groups.push(Group { vm, mode, entries });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_in_one_group_for_each_of_its_modes() {
        let groups = groups(&Selection::default());
        let planned: usize = groups.iter().map(|group| group.entries.len()).sum();
        let wanted: usize = cases::all().map(|entry| entry.case.modes.len()).sum();
        assert_eq!(planned, wanted);
    }

    #[test]
    fn filters_and_mode_narrow_the_groups() {
        let selection = Selection {
            filters: vec!["fork.".into()],
            mode: Some(Mode::Coherent),
        };
        let groups = groups(&selection);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].mode, Mode::Coherent);
        assert!(groups[0]
            .entries
            .iter()
            .all(|entry| entry.subject == "fork"));
    }

    #[test]
    fn a_filter_that_fits_nothing_gives_no_group() {
        let selection = Selection {
            filters: vec!["no such case".into()],
            mode: None,
        };
        assert!(groups(&selection).is_empty());
    }
}

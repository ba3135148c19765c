// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which cases run together.

use std::collections::BTreeSet;
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
    /// Only these results, each with its mode; all if absent.
    pub exact: Option<BTreeSet<String>>,
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

    /// Name of the group.
    pub fn name(&self) -> String {
        self.result_name(self.vm.name())
    }

    /// Names of the results that come of it.
    pub fn results(&self) -> impl Iterator<Item = String> + '_ {
        let of_cases = self
            .entries
            .iter()
            .map(|entry| self.result_name(&entry.full_name()));
        of_cases.chain([self.end()])
    }

    /// Name of the result that says how its VMs ended.
    pub fn end(&self) -> String {
        format!("{}.the_vm_ends_well", self.name())
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
            let mut group = Group { vm, mode, entries };
            if let Some(exact) = &selection.exact {
                let named =
                    |entry: &Entry| exact.contains(&format!("{mode}.{}", entry.full_name()));
                group.entries.retain(named);
            }
            if !group.entries.is_empty() {
                groups.push(group);
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
            exact: None,
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
            ..Selection::default()
        };
        assert!(groups(&selection).is_empty());
    }

    #[test]
    fn results_have_unique_names_by_which_they_are_selected_alone() {
        let all = groups(&Selection::default());
        let names: Vec<String> = all.iter().flat_map(Group::results).collect();
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        for group in &all {
            let last = group.entries.len() - 1;
            let name = group.result_name(&group.entries[last].full_name());
            let selection = Selection {
                exact: Some([name.clone()].into()),
                ..Selection::default()
            };
            let [alone] = &groups(&selection)[..] else {
                panic!("not one group for {name}");
            };
            assert_eq!(alone.results().collect::<Vec<_>>(), [name, group.end()]);
        }
    }
}

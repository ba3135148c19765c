// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cases, one file a subject.

pub mod access;
pub mod accounting;
pub mod advise;
pub mod advise_limits;
pub mod atomics;
pub mod blas;
pub mod capacity;
pub mod checkpoints;
pub mod coherence;
pub mod commands;
pub mod conventions;
pub mod departure;
pub mod deviations;
pub mod device_limits;
pub mod endings;
pub mod exit;
pub mod fork;
pub mod hot;
pub mod ioctl;
pub mod isolation;
pub mod kernel_access;
pub mod kinds;
pub mod large;
pub mod large_capacity;
pub mod large_changes;
pub mod large_ranges;
pub mod lifecycle;
pub mod loss;
pub mod mapping_changes;
pub mod migration;
pub mod no_migration;
pub mod numa;
pub mod numa_faults;
pub mod numa_files;
pub mod numa_removal;
pub mod numpy;
pub mod observability;
pub mod openers;
pub mod page_state;
pub mod program_storm;
pub mod programs;
pub mod reclaim;
pub mod reset;
pub mod shortage;
pub mod small_queues;
pub mod sparse;
pub mod stall;
pub mod storm;
pub mod stress;
pub mod two_devices;
pub mod two_functions;
pub mod userfaults;

use crate::case::{Entry, Subject};

/// All subjects, the plain ones first.
const SUBJECTS: [Subject; 52] = [
    commands::SUBJECT,
    access::SUBJECT,
    kinds::SUBJECT,
    coherence::SUBJECT,
    atomics::SUBJECT,
    migration::SUBJECT,
    hot::SUBJECT,
    advise::SUBJECT,
    advise_limits::SUBJECT,
    accounting::SUBJECT,
    device_limits::SUBJECT,
    large::SUBJECT,
    observability::SUBJECT,
    numa::SUBJECT,
    numa_faults::SUBJECT,
    numa_files::SUBJECT,
    kernel_access::SUBJECT,
    checkpoints::SUBJECT,
    ioctl::SUBJECT,
    fork::SUBJECT,
    mapping_changes::SUBJECT,
    userfaults::SUBJECT,
    large_changes::SUBJECT,
    isolation::SUBJECT,
    exit::SUBJECT,
    endings::SUBJECT,
    reset::SUBJECT,
    shortage::SUBJECT,
    storm::SUBJECT,
    large_ranges::SUBJECT,
    sparse::SUBJECT,
    blas::SUBJECT,
    reclaim::SUBJECT,
    page_state::SUBJECT,
    large_capacity::SUBJECT,
    capacity::SUBJECT,
    two_devices::SUBJECT,
    programs::SUBJECT,
    program_storm::SUBJECT,
    conventions::SUBJECT,
    stress::SUBJECT,
    numpy::SUBJECT,
    lifecycle::SUBJECT,
    departure::SUBJECT,
    stall::SUBJECT,
    no_migration::SUBJECT,
    numa_removal::SUBJECT,
    openers::SUBJECT,
    two_functions::SUBJECT,
    small_queues::SUBJECT,
    deviations::SUBJECT,
    loss::SUBJECT,
];

/// All cases.
pub fn all() -> impl Iterator<Item = Entry> {
    SUBJECTS.into_iter().flat_map(|subject| {
        subject.cases.iter().map(move |case| Entry {
            subject: subject.name,
            case,
        })
    })
}

/// The case of this full name.
pub fn find(full_name: &str) -> Option<Entry> {
    all().find(|entry| entry.full_name() == full_name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn full_names_are_unique() {
        let mut seen = HashSet::new();
        for entry in all() {
            assert!(
                seen.insert(entry.full_name()),
                "{} is there twice",
                entry.full_name()
            );
        }
    }

    #[test]
    fn every_case_is_found_by_its_full_name_alone() {
        for entry in all() {
            let found = find(&entry.full_name()).expect("a case of the table");
            assert_eq!(found.case.name, entry.case.name);
            assert!(found.selected_by(&[entry.full_name()]));
        }
    }
}

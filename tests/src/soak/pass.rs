// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The order in which parts run.
//!
//! A pass has each part of each workload once, and the workloads advance through it evenly: what has many
//! parts comes often, what has one comes once. So time in storms goes to parts that have not been in one,
//! and a soak that begins where another ended goes on with what is left.

use super::workload::{Workload, ALL};

/// One part of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Whose part it is.
    pub workload: &'static Workload,
    /// Its name.
    pub part: &'static str,
    /// The script's arguments.
    pub args: &'static str,
}

/// All steps of a pass, in their order. It begins with a part of each workload.
pub fn pass() -> Vec<Step> {
    let mut steps: Vec<(usize, usize, Step)> = Vec::new();
    for workload in &ALL {
        for (index, &(part, args)) in workload.parts.iter().enumerate() {
            let step = Step {
                workload,
                part,
                args,
            };
            steps.push((index, workload.parts.len(), step));
        }
    }
    // How far the workload is before the step, as fractions; those that are equal stay as they are.
    steps.sort_by_key(|&(index, of, _)| index * common_multiple() / of);
    steps.into_iter().map(|(_, _, step)| step).collect()
}

/// A multiple of all numbers of parts.
fn common_multiple() -> usize {
    ALL.iter().map(|workload| workload.parts.len()).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_begins_with_each_workload_and_has_each_part_once() {
        let steps = pass();
        let first: Vec<_> = steps
            .iter()
            .take(4)
            .map(|step| step.workload.name)
            .collect();
        assert_eq!(first, ALL.each_ref().map(|workload| workload.name));
        let mut names: Vec<_> = steps
            .iter()
            .map(|step| step.workload.part_name(step.part))
            .collect();
        names.sort_unstable();
        names.dedup();
        let parts = ALL.iter().map(|workload| workload.parts.len()).sum();
        assert_eq!((steps.len(), names.len()), (parts, parts));
    }

    #[test]
    fn workloads_advance_evenly_in_the_order_of_their_parts() {
        let steps = pass();
        for workload in &ALL {
            let of = workload.parts.len();
            let mut done = 0;
            for (at, step) in steps.iter().enumerate() {
                if step.workload.name == workload.name {
                    assert_eq!(step.part, workload.parts[done].0);
                    done += 1;
                }
                // At most a part ahead or behind, beside the one that each begins with.
                let share = (at + 1) * of / steps.len();
                assert!(
                    done.abs_diff(share) <= 2,
                    "{}: {done} at {at}",
                    workload.name
                );
            }
        }
    }
}

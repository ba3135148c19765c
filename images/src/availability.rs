// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which kernels and QEMUs are there, which can be had and how long that takes, and which of them is ready
//! soonest.

use clap::ValueEnum;
use serde::Serialize;

use crate::accel::Accel;
use crate::debian;
use crate::host_packages::{self, Group};
use crate::images::Which;
use crate::kernel::{self, Named, Variant, Version};
use crate::machine::Translation;
use crate::pcie;
use crate::progress::{self, Expected};
use crate::qemu::{self, Choice};

/// What there is of a kernel or a QEMU.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there, in this version.
    There(String),
    /// It is not there yet.
    CanBeHad {
        /// What would be done.
        how: &'static str,
        /// How long that takes on two processors, packages and downloads of a fast mirror included: what the
        /// steps took ([`Expected`]), some at once, as in the progress of a whole.
        minutes: u32,
        /// Whether all of these steps were measured for this one, and not for one like it.
        measured: bool,
    },
    /// It cannot be had on this machine, for this reason.
    Cannot(String),
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// As options name it.
    pub name: String,
    /// What there is of it.
    pub state: State,
}

/// Every kernel and every QEMU that has a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// By `--kernel`.
    pub kernels: Vec<Row>,
    /// By `--qemu`.
    pub qemus: Vec<Row>,
    /// What can have the guest's IOMMU translate, by `--translation pcie`.
    pub pcie: Vec<pcie::Part>,
}

impl Table {
    /// As things are now, with what runs the guests' code if anything does.
    pub fn now(accel: Option<Accel>) -> Self {
        let kernels = Named::value_variants().iter().map(|kernel| Row {
            name: kernel.name().to_owned(),
            state: of_kernel(*kernel),
        });
        let qemus = [Choice::Ours, Choice::Debian, Choice::Stock];
        let qemus = qemus.iter().map(|qemu| Row {
            name: qemu.name().to_string_lossy().into_owned(),
            state: of_qemu(qemu),
        });
        Table {
            kernels: kernels.collect(),
            qemus: qemus.collect(),
            pcie: pcie::table(accel),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::There(version) => write!(f, "there: {version}"),
            State::CanBeHad {
                how,
                minutes,
                measured,
            } => {
                let word = if *measured { "measured" } else { "estimated" };
                write!(
                    f,
                    "can be had: {how}, {minutes} min on two processors ({word})"
                )
            }
            State::Cannot(why) => write!(f, "cannot be had: {why}"),
        }
    }
}

/// What there is of a kernel.
pub fn of_kernel(kernel: Named) -> State {
    if let Ok(built) = kernel.built() {
        return State::There(built.version);
    }
    let which = kernel::Which::from(kernel);
    match kernel {
        Named::Own(kind) => {
            let how = match kind.variant {
                Variant::Base | Variant::Debug => "built from Linux's source",
                Variant::Kasan => "built from Linux's source by clang",
            };
            let measured = kind.version == Version::default() && kind.variant != Variant::Kasan;
            built_here(how, &which.packages(), which.expected(), measured)
        }
        Named::Debian => fetched(
            "Debian's packages, and the metadata for modules in Rust built again",
            &which.packages(),
            which.expected(),
        ),
    }
}

/// What there is of a QEMU.
pub fn of_qemu(qemu: &Choice) -> State {
    let which = qemu::Which {
        qemu: Some(qemu.clone()),
    };
    match (qemu.built(), qemu) {
        (Ok(built), _) => State::There(format!("{}, {}", built.version, built.program.display())),
        (Err(_), Choice::Ours) => built_here(
            "built from QEMU's source with our patches",
            &which.packages(),
            which.expected(),
            true,
        ),
        (Err(_), Choice::Debian) => fetched(
            "Debian's packages, in a folder of ours",
            &which.packages(),
            which.expected(),
        ),
        (Err(problem), _) => State::Cannot(format!("{problem:#}")),
    }
}

/// What is built, where the packages that it takes are there or can be installed.
fn built_here(how: &'static str, groups: &[Group], parts: Vec<Expected>, measured: bool) -> State {
    match host_packages::missing(groups) {
        Ok(_) => can_be_had(how, groups, parts, measured),
        Err(problem) => State::Cannot(format!("{problem:#}")),
    }
}

/// What Debian's mirrors have, in whatever release that is.
fn fetched(how: &'static str, groups: &[Group], parts: Vec<Expected>) -> State {
    match debian::reachable() {
        Ok(()) => can_be_had(how, groups, parts, false),
        Err(problem) => State::Cannot(format!("{problem:#}")),
    }
}

fn can_be_had(how: &'static str, groups: &[Group], parts: Vec<Expected>, measured: bool) -> State {
    let parts = [host_packages::expected(groups), parts].concat();
    State::CanBeHad {
        how,
        minutes: progress::minutes(parts),
        measured,
    }
}

/// Settles what a command line leaves open by what is ready soonest: what is built here if it is there, else
/// another that is there, else what takes the least time; of those that can have the guest's IOMMU translate, if
/// it is to. The second is why, a line for each.
pub fn soonest(which: Which) -> (Which, Vec<String>) {
    let mut why = Vec::new();
    let mut which = which;
    if which.kernel.kernel.is_none() && which.kernel.kernel_tree.is_none() {
        let mut candidates = vec![Named::default(), Named::Debian];
        candidates.retain(|kernel| can_have(&which, pcie::of_named(*kernel)));
        let states: Vec<_> = candidates
            .iter()
            .map(|kernel| (kernel.name().to_owned(), of_kernel(*kernel)))
            .collect();
        let (index, reason) = best(&states);
        which.kernel.kernel = candidates.get(index).copied();
        why.extend(reason.map(|reason| format!("Kernel: {reason}")));
    }
    if which.qemu.qemu.is_none() {
        let mut candidates = vec![Choice::Ours, Choice::Stock, Choice::Debian];
        candidates.retain(|qemu| can_have(&which, pcie::of_choice(qemu)));
        let states: Vec<_> = candidates
            .iter()
            .map(|qemu| (qemu.name().to_string_lossy().into_owned(), of_qemu(qemu)))
            .collect();
        let (index, reason) = best(&states);
        which.qemu.qemu = candidates.get(index).cloned();
        why.extend(reason.map(|reason| format!("QEMU: {reason}")));
    }
    (which, why)
}

/// Whether a part is known to be able to do what is meant.
fn can_have(which: &Which, part: pcie::Part) -> bool {
    match which.translation() {
        Translation::Virtqueue => true,
        Translation::Pcie => part.lacks.is_some_and(|lacks| lacks.is_empty()),
    }
}

/// The best of some, the first of which is the one to have in the end, and why it is not that.
fn best(states: &[(String, State)]) -> (usize, Option<String>) {
    let rank = |state: &State| match state {
        State::There(_) => 0,
        State::CanBeHad { minutes, .. } => 1 + minutes,
        State::Cannot(_) => u32::MAX,
    };
    // Of equals the first.
    let best = states
        .iter()
        .enumerate()
        .min_by_key(|(_, (_, state))| rank(state));
    let (Some((index, (name, state))), Some((ours, other))) = (best, states.first()) else {
        return (0, None);
    };
    let reason = (index > 0).then(|| {
        let other = match other {
            State::CanBeHad { minutes, .. } => {
                format!("takes about {minutes} min on two processors when it is first asked for")
            }
            other => other.to_string(),
        };
        format!("{name}, {state}; {ours} {other}")
    });
    (index, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kind;

    fn had(minutes: u32) -> State {
        State::CanBeHad {
            how: "somehow",
            minutes,
            measured: true,
        }
    }

    fn index(states: &[State]) -> usize {
        let names = ["ours", "stock", "debian"].map(str::to_owned);
        let states: Vec<_> = names.into_iter().zip(states.iter().cloned()).collect();
        best(&states).0
    }

    #[test]
    fn the_soonest_is_what_is_there_and_ours_before_others() {
        let there = || State::There("1".into());
        let cannot = || State::Cannot("no".into());
        assert_eq!(index(&[there(), there(), there()]), 0);
        assert_eq!(index(&[had(6), there(), there()]), 1);
        assert_eq!(index(&[had(6), cannot(), there()]), 2);
        assert_eq!(index(&[had(6), cannot(), had(1)]), 2);
        assert_eq!(index(&[had(6), cannot(), cannot()]), 0);
        assert_eq!(index(&[had(1), cannot(), had(1)]), 0);
        // Then the command says what it would take.
        assert_eq!(index(&[cannot(), cannot(), cannot()]), 0);
    }

    #[test]
    fn kernels_take_as_long_as_their_steps() {
        let minutes = |variant| {
            let version = Version::default();
            progress::minutes(kernel::own::expected(Kind { version, variant }))
        };
        let all = [Variant::Base, Variant::Debug, Variant::Kasan].map(minutes);
        // Half of an hour of processor time at most, and nothing within a minute.
        assert!(all.is_sorted() && all[0] > 5 && all[2] < 30, "{all:?}");
        assert!(progress::minutes(kernel::debian::expected()) < all[0]);
    }

    #[test]
    fn what_cannot_translate_is_not_chosen_to() {
        let which = |translation| Which {
            translation,
            ..Which::default()
        };
        let part = |lacks: Option<&str>| pcie::Part {
            name: String::new(),
            lacks: lacks.map(|what| what.split_whitespace().map(str::to_owned).collect()),
        };
        let pcie = which(Some(Translation::Pcie));
        assert!(can_have(&pcie, part(Some(""))));
        for other in [part(Some("CONFIG_INTEL_IOMMU")), part(None)] {
            assert!(!can_have(&pcie, other.clone()));
            assert!(can_have(&which(None), other));
        }
    }

    #[test]
    fn why_it_is_not_ours_is_said() {
        let states = [("ours".to_owned(), had(6)), ("debian".to_owned(), had(1))];
        let (_, why) = best(&states);
        let why = why.expect("it is another");
        for word in ["debian", "ours takes about 6 min", "measured"] {
            assert!(why.contains(word), "no {word} in: {why}");
        }
        assert_eq!(best(&states[..1]).1, None);
    }

    #[test]
    fn options_that_were_given_stay() {
        let which = Which {
            kernel: Named::Debian.into(),
            qemu: crate::qemu::Which {
                qemu: Some(Choice::Stock),
            },
            ..Which::default()
        };
        let (settled, why) = soonest(which.clone());
        assert!(settled.words().eq(which.words()) && why.is_empty());
    }
}

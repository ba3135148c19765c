// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Decides between KVM and TCG.
//!
//! A `/dev/kvm` that opens proves little: there are nested hypervisors in which VMs can be made
//! and die on the first VEX-coded instruction of a kernel. So a virtual CPU has to prove it.

mod probe;

use std::sync::OnceLock;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// KVM where a virtual CPU proves that it works, else TCG
    #[default]
    Auto,
    /// KVM, or fail
    Kvm,
    /// QEMU's own translation: works everywhere, about ten times slower
    Tcg,
}

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The processor, by `/dev/kvm`.
    Kvm,
    /// QEMU, by translation.
    Tcg,
}

impl Accel {
    /// Name as QEMU and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// A decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What runs the guest's code.
    pub accel: Accel,
    /// Why, in one line.
    pub reason: String,
}

/// Decides; the proof is run once in a program's life.
///
/// # Errors
///
/// KVM was asked for and does not work, for the reason given.
pub fn decide(choice: Choice) -> Result<Decision, String> {
    static PROOF: OnceLock<Result<(), String>> = OnceLock::new();
    decide_with(choice, || PROOF.get_or_init(probe::prove_kvm).clone())
}

fn decide_with(
    choice: Choice,
    prove: impl FnOnce() -> Result<(), String>,
) -> Result<Decision, String> {
    if choice == Choice::Tcg {
        return Ok(Decision {
            accel: Accel::Tcg,
            reason: "asked for".into(),
        });
    }
    match (prove(), choice) {
        (Ok(()), _) => Ok(Decision {
            accel: Accel::Kvm,
            reason: "a virtual CPU proved that it works".into(),
        }),
        (Err(reason), Choice::Kvm) => Err(reason),
        (Err(reason), _) => Ok(Decision {
            accel: Accel::Tcg,
            reason: format!("KVM does not work here: {reason}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_kvm_when_proved_and_tcg_with_the_reason_when_not() {
        let good = decide_with(Choice::Auto, || Ok(())).expect("auto never fails");
        assert_eq!(good.accel, Accel::Kvm);
        let bad = decide_with(Choice::Auto, || Err("no /dev/kvm".into())).expect("never fails");
        assert_eq!(bad.accel, Accel::Tcg);
        assert!(bad.reason.contains("no /dev/kvm"));
    }

    #[test]
    fn kvm_that_does_not_work_is_refused_not_replaced() {
        assert_eq!(
            decide_with(Choice::Kvm, || Err("dead".into())),
            Err("dead".into())
        );
    }

    #[test]
    fn tcg_needs_no_proof() {
        let decision = decide_with(Choice::Tcg, || unreachable!("nothing to prove"));
        assert_eq!(decision.map(|decision| decision.accel), Ok(Accel::Tcg));
    }
}

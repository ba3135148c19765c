// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What VMs are, in one value: each command that boots some says it in one line, and each report has it as an
//! object of the same shape.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::images::Images;
use crate::job::Mode;
use crate::pcie;
use crate::qemu::Form;

/// How a device gets the translations of a program's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Translation {
    /// The driver answers the device's requests on a virtqueue.
    #[default]
    Virtqueue,
    /// The guest's IOMMU answers them, by PCIe ATS and PRI.
    Pcie,
}

impl Translation {
    /// Those of some modes that can have it.
    pub fn modes(self, of: &[Mode]) -> Vec<Mode> {
        let can = |mode: &&Mode| self.can_be_in(**mode).is_ok();
        of.iter().filter(can).copied().collect()
    }

    /// Whether a mode can have it.
    ///
    /// # Errors
    ///
    /// Says why not, and what can.
    pub fn can_be_in(self, mode: Mode) -> Result<(), String> {
        match self {
            Translation::Virtqueue => Ok(()),
            Translation::Pcie => pcie::of_mode(mode),
        }
    }
}

/// A part that there are several of: which it is, as options name it, and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// A word, or the path of one of the user's own.
    pub source: String,
    /// As it tells it itself.
    pub version: String,
}

/// The VMs of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The guest's kernel.
    pub kernel: Part,
    /// QEMU.
    pub qemu: Part,
    /// How QEMU shows the device.
    #[serde(serialize_with = "by_name")]
    pub device: Form,
    /// How the device gets translations.
    pub translation: Translation,
    /// What runs the guest's code.
    pub accel: &'static str,
    /// Why it does.
    pub accel_reason: String,
    /// How device memory is used, a mode a VM.
    pub modes: Vec<Mode>,
}

fn by_name<S: serde::Serializer>(form: &Form, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(form.name())
}

impl Machine {
    /// What VMs of these images in these modes are.
    pub fn new(images: &Images, modes: &[Mode]) -> Self {
        Machine {
            kernel: images.kernel_part.clone(),
            qemu: images.qemu_part.clone(),
            device: images.form,
            translation: images.translation,
            accel: images.accel.accel.name(),
            accel_reason: images.accel.reason.clone(),
            modes: modes.to_vec(),
        }
    }
}

impl Machine {
    /// A report, with this machine as what it is of.
    pub fn report<R: Serialize>(&self, report: R) -> impl Serialize + use<'_, R> {
        Of {
            machine: self,
            report,
        }
    }
}

/// A report of a machine.
#[derive(Serialize)]
struct Of<'a, R> {
    machine: &'a Machine,
    #[serde(flatten)]
    report: R,
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Translation::Virtqueue => "virtqueue",
            Translation::Pcie => "pcie",
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { kernel, qemu, .. } = self;
        let modes: Vec<&str> = self.modes.iter().map(|mode| mode.name()).collect();
        write!(
            f,
            "Machine: Linux {} ({}), QEMU {} ({}, {}), translation by {}, {} {}, {} ({})",
            kernel.version,
            kernel.source,
            qemu.version,
            qemu.source,
            self.device.name(),
            self.translation,
            if modes.len() == 1 { "mode" } else { "modes" },
            modes.join(", "),
            self.accel,
            self.accel_reason,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let part = |source: &str, version: &str| Part {
            source: source.into(),
            version: version.into(),
        };
        Machine {
            kernel: part("/home/me/linux", "7.3.4-mine"),
            qemu: part("ours", "11.1.1"),
            device: Form::OneFunction,
            translation: Translation::Virtqueue,
            accel: "tcg",
            accel_reason: "asked for".into(),
            modes: vec![Mode::Private, Mode::Numa],
        }
    }

    #[test]
    fn a_machine_is_one_line() {
        assert_eq!(
            machine().to_string(),
            "Machine: Linux 7.3.4-mine (/home/me/linux), QEMU 11.1.1 (ours, one function), translation by \
             virtqueue, modes private, numa, tcg (asked for)"
        );
    }

    #[test]
    fn a_report_has_it_as_an_object() {
        let report = serde_json::json!({"verdict": "pass"});
        let json = serde_json::to_value(machine().report(report)).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({
                "machine": {
                    "kernel": {"source": "/home/me/linux", "version": "7.3.4-mine"},
                    "qemu": {"source": "ours", "version": "11.1.1"},
                    "device": "one function",
                    "translation": "virtqueue",
                    "accel": "tcg",
                    "accel_reason": "asked for",
                    "modes": ["private", "numa"],
                },
                "verdict": "pass",
            })
        );
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it takes to have the guest's IOMMU translate for the devices, by PCIe ATS and PRI, and which parts lack
//! something of it. Nothing is booted to find out.
//!
//! | part | has to have |
//! |---|---|
//! | mode | device memory with addresses, which private memory has not |
//! | kernel | `KERNEL_OPTIONS` |
//! | QEMU | our device with `DEVICE_OPTION`, and an IOMMU with `IOMMU_OPTIONS` |
//! | processor | page tables of four levels: QEMU's IOMMU walks no others, so VMs have no others ([`cpu`]) |

use std::path::Path;

use anyhow::{ensure, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::accel::Accel;
use crate::images::Which;
use crate::job::Mode;
use crate::kernel::config::Config;
use crate::kernel::Named;
use crate::qemu::{self, Choice};

/// What is built into a kernel that shares processes' page tables with an IOMMU; they select all else.
const KERNEL_OPTIONS: [&str; 2] = ["INTEL_IOMMU", "INTEL_IOMMU_SVM"];
/// Property of the device by which the back end asks the IOMMU.
const DEVICE_OPTION: &str = "translation-chardev";
/// The IOMMU.
const IOMMU: &str = "intel-iommu";
/// Properties of an IOMMU that walks page tables of processes and passes page requests on.
const IOMMU_OPTIONS: [&str; 5] = ["scalable-mode", "svm", "device-iotlb", "pasid-bits", "fsts"];
/// A processor without five-level page tables, which an IOMMU of QEMU does not walk.
const FOUR_LEVELS: &str = "la57=off";

/// The device on the command line that is the IOMMU.
pub fn iommu() -> String {
    format!("{IOMMU},scalable-mode=on,svm=on,device-iotlb=on,pasid-bits=20,fsts=on")
}

/// The processor of a VM with that.
pub fn cpu(accel: Accel) -> String {
    let model = match accel {
        Accel::Kvm => "host",
        Accel::Tcg => "max",
    };
    format!("{model},{FOUR_LEVELS}")
}

/// A part, and what of it is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// As options name it, or with its version.
    pub name: String,
    /// What it lacks; nothing if it can, and unknown if it is not there yet.
    pub lacks: Option<Vec<String>>,
}

impl Part {
    fn new(name: impl Into<String>, lacks: Option<Vec<String>>) -> Self {
        let name = name.into();
        Part { name, lacks }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.lacks {
            None => write!(f, "known when it is there"),
            Some(lacks) if lacks.is_empty() => write!(f, "can"),
            Some(lacks) => write!(f, "cannot: it lacks {}", lacks.join(", ")),
        }
    }
}

/// What a kernel of this configuration lacks.
pub fn of_kernel(config: &Config) -> Vec<String> {
    let off = KERNEL_OPTIONS.iter().filter(|option| !config.is_on(option));
    off.map(|option| format!("CONFIG_{option}")).collect()
}

/// What a QEMU lacks, which is asked.
///
/// # Errors
///
/// It does not answer.
pub fn of_qemu(program: &Path) -> Result<Vec<String>> {
    let asked = [
        (qemu::WHOLE_DEVICE, &[DEVICE_OPTION][..]),
        (IOMMU, &IOMMU_OPTIONS),
    ];
    let mut lacks = Vec::new();
    for (device, options) in asked {
        match qemu::options_of(program, device)? {
            None => lacks.push(format!("the device {device}")),
            Some(has) => lacks.extend(
                options
                    .iter()
                    .filter(|option| !has.iter().any(|name| name == *option))
                    .map(|option| format!("{option} of {device}")),
            ),
        }
    }
    Ok(lacks)
}

/// A kernel that has a name, and what it lacks.
pub fn of_named(kernel: Named) -> Part {
    let lacks = kernel.config().map(|config| of_kernel(&config));
    Part::new(format!("kernel {}", kernel.name()), lacks)
}

/// A QEMU that may not be there yet, and what it lacks.
pub fn of_choice(choice: &Choice) -> Part {
    let lacks = match (choice.built(), choice) {
        (Ok(built), _) => {
            let asked = of_qemu(&built.program);
            Some(asked.unwrap_or_else(|error| vec![format!("an answer: {error:#}")]))
        }
        (Err(_), Choice::Ours) => Some(Vec::new()),
        (Err(_), Choice::Debian) => Some(vec![format!("the device {}", qemu::WHOLE_DEVICE)]),
        (Err(_), Choice::Stock | Choice::Program(_)) => None,
    };
    Part::new(format!("qemu {}", choice.name().to_string_lossy()), lacks)
}

/// Why a mode cannot have it, with what can.
pub fn of_mode(mode: Mode) -> Result<(), String> {
    if mode != Mode::Private {
        return Ok(());
    }
    Err("--translation pcie needs device memory that the CPU reaches, since an IOMMU has no address for private \
         pages: add --mode coherent or --mode numa"
        .into())
}

/// The parts that are meant, as far as they are known before they are built.
pub fn parts(which: &Which) -> [Part; 2] {
    let [option, name] = which.kernel.words();
    let config = which.kernel.config();
    let kernel = Part::new(
        format!("{} {}", option.to_string_lossy(), name.to_string_lossy()),
        config.map(|config| of_kernel(&config)),
    );
    let qemu = of_choice(&which.qemu.choice());
    [kernel, Part::new(format!("--{}", qemu.name), qemu.lacks)]
}

/// Refuses parts that lack something.
///
/// # Errors
///
/// One line with all that is missing, and what to do.
pub fn refuse(parts: &[Part]) -> Result<()> {
    let lacking: Vec<String> = parts
        .iter()
        .filter_map(|part| {
            let lacks = part.lacks.as_ref().filter(|lacks| !lacks.is_empty())?;
            Some(format!("{} lacks {}", part.name, lacks.join(", ")))
        })
        .collect();
    ensure!(
        lacking.is_empty(),
        "--translation pcie cannot be had: {}. The kernels and the QEMU of ours have all of it: leave --kernel, \
         --kernel-tree and --qemu out, or build yours with it",
        lacking.join("; ")
    );
    Ok(())
}

/// What can have it, of all that has a name: for people who choose.
pub fn table(accel: Option<Accel>) -> Vec<Part> {
    let kernels = Named::value_variants()
        .iter()
        .map(|kernel| of_named(*kernel));
    let qemus = [Choice::Ours, Choice::Debian, Choice::Stock];
    let qemus = qemus.each_ref().map(of_choice);
    let cpu = accel.map(|accel| Part::new(format!("cpu {}", cpu(accel)), Some(Vec::new())));
    let modes = Mode::ALL.iter().map(|&mode| {
        let lacks = of_mode(mode)
            .err()
            .map(|_| "addresses of its pages".to_owned());
        Part::new(format!("mode {mode}"), Some(lacks.into_iter().collect()))
    });
    kernels.chain(qemus).chain(cpu).chain(modes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_lacks_what_is_not_built_in() {
        let lacks = |text| of_kernel(&Config::parse(text));
        assert_eq!(
            lacks("CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_SVM=y\n"),
            [""; 0]
        );
        assert_eq!(
            lacks("CONFIG_INTEL_IOMMU=y\n# CONFIG_INTEL_IOMMU_SVM is not set\n"),
            ["CONFIG_INTEL_IOMMU_SVM"]
        );
        assert_eq!(lacks("").len(), 2);
    }

    #[test]
    fn the_kernels_of_ours_can() {
        use crate::kernel::Kind;
        for kind in Kind::ALL {
            let config = Named::Own(kind).config().expect("known before it is built");
            assert_eq!(of_kernel(&config), [""; 0], "{}", kind.name());
        }
    }

    #[test]
    fn what_lacks_something_is_refused_by_name_and_what_is_unknown_is_not() {
        let part = |name: &str, lacks: Option<&[&str]>| {
            let lacks = lacks.map(|lacks| lacks.iter().map(|what| (*what).to_owned()).collect());
            Part::new(name, lacks)
        };
        refuse(&[
            part("--kernel debian", None),
            part("--qemu ours", Some(&[])),
        ])
        .expect("they can");
        let error = refuse(&[
            part("--kernel debian", Some(&["CONFIG_INTEL_IOMMU_SVM"])),
            part("--qemu debian", Some(&["the device vhost-user-coax-pci"])),
            part("--qemu ours", Some(&[])),
        ]);
        let text = format!("{:#}", error.expect_err("two cannot"));
        for word in [
            "--kernel debian lacks CONFIG_INTEL_IOMMU_SVM;",
            "--qemu debian lacks the device vhost-user-coax-pci.",
            "leave --kernel",
        ] {
            assert!(text.contains(word), "no {word} in: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains("--qemu ours lacks"), "{text}");
    }

    #[test]
    fn every_part_is_in_the_table_and_private_memory_cannot() {
        let table = table(Some(Accel::Tcg));
        let find = |name: &str| table.iter().find(|part| part.name == name);
        for name in [
            "kernel base",
            "qemu debian",
            "cpu max,la57=off",
            "mode numa",
        ] {
            assert!(find(name).is_some(), "no {name} in {table:?}");
        }
        let private = find("mode private").expect("a mode");
        assert!(private.to_string().starts_with("cannot"), "{private}");
    }
}

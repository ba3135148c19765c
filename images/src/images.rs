// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The finished images that VMs are started from, and what runs them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{anyhow, Context, Result};
use clap::builder::PossibleValue;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::accel::{self, Accel, Decision};
use crate::archive;
use crate::cache::Lock;
use crate::guest;
use crate::host_packages::{self, Group};
use crate::job::Mode;
use crate::kernel::{self, Kernel};
use crate::machine::{Machine, Part, Translation};
use crate::pcie;
use crate::progress::{Expected, Whole};
use crate::qemu::{self, Form, Qemu};
use crate::steps::Steps;

/// Which kernel, which QEMU, which acceleration and which translation are meant.
#[derive(clap::Args, Clone, Debug, Default)]
// Groups have the names of their structures, and this is not the only one of its name.
#[group(skip)]
pub struct Which {
    /// The kernel.
    #[command(flatten)]
    pub kernel: kernel::Which,
    /// QEMU.
    #[command(flatten)]
    pub qemu: qemu::Which,
    /// What runs the guest's code
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub accel: accel::Choice,
    /// Who translates addresses for the devices: the driver, or the guest's IOMMU by PCIe ATS and PRI, which
    /// modes with device memory that the CPU reaches can have [default: virtqueue]
    #[arg(long, value_enum, value_name = "WHO")]
    pub translation: Option<Translation>,
}

impl Which {
    /// The words that name these on a command line.
    pub fn words(&self) -> impl Iterator<Item = OsString> {
        let option = |name: &str, value: Option<PossibleValue>| {
            value.map(|value| [name.into(), value.get_name().into()])
        };
        let accel = option("--accel", self.accel.to_possible_value());
        let translation = self.translation.and_then(|who| who.to_possible_value());
        let translation = option("--translation", translation);
        let parts = self.kernel.words().into_iter().chain(self.qemu.words());
        parts.chain([accel, translation].into_iter().flatten().flatten())
    }

    /// Who translates, unless a VM says otherwise.
    pub fn translation(&self) -> Translation {
        self.translation.unwrap_or_default()
    }

    /// Refuses what cannot be used, before anything is built or waited for.
    ///
    /// # Errors
    ///
    /// Those of [`kernel::Which::check`] and [`qemu::Which::check`], KVM that does not work, and parts that are
    /// known not to be able to have the IOMMU translate, if it is to.
    pub fn check(&self) -> Result<()> {
        self.decide()?;
        self.kernel.check()?;
        self.qemu.check()?;
        match self.translation() {
            Translation::Virtqueue => Ok(()),
            Translation::Pcie => pcie::refuse(&pcie::parts(self)),
        }
    }

    /// Packages of the host that building it all takes.
    fn packages(&self) -> Vec<Group> {
        let parts = [self.kernel.packages(), self.qemu.packages()];
        let mut groups: Vec<Group> = parts.concat();
        groups.push(Group::Guest);
        groups
    }

    /// What is still to be done, as it was measured.
    fn expected(&self) -> Vec<Expected> {
        let packages = host_packages::expected(&self.packages());
        let parts = [
            packages,
            self.kernel.expected(),
            self.qemu.expected(),
            guest::EXPECTED.to_vec(),
        ];
        parts.concat()
    }

    /// What runs the guest's code, and why.
    pub(crate) fn decide(&self) -> Result<Decision> {
        accel::decide(self.accel).map_err(|reason| anyhow!("KVM does not work here: {reason}"))
    }
}

/// Paths of everything a VM needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Images {
    /// Bootable kernel.
    pub kernel: PathBuf,
    /// Which kernel that is.
    pub kernel_part: Part,
    /// How many times as long as on a kernel without checks VMs may take.
    pub time_factor: u32,
    /// Words for the kernel's command line that it was built for.
    pub kernel_args: Option<String>,
    /// QEMU.
    pub qemu: PathBuf,
    /// Which QEMU that is.
    pub qemu_part: Part,
    /// Folders with the firmware that QEMU loads, if it does not know them.
    pub firmware: Vec<PathBuf>,
    /// How QEMU shows the device.
    pub form: Form,
    /// What runs the guest's code, and why: each machine's own affair.
    #[serde(skip, default = "undecided")]
    pub accel: Decision,
    /// Who translates, where a VM does not say: each command's own affair.
    #[serde(skip)]
    pub translation: Translation,
    /// What keeps the guest's IOMMU from that on this kernel.
    pub kernel_lacks_for_pcie: Vec<String>,
    /// Root file system, without a job.
    pub initramfs: PathBuf,
    /// The back end.
    pub device: PathBuf,
    /// The kernel's own tests, of which there is a copy in the root file system.
    pub hmm_tests: PathBuf,
    /// The program that measures the engine on host memory.
    pub engine_bench: PathBuf,
    /// Seconds that kernel, QEMU and guest took to build, together.
    pub build_seconds: f64,
}

/// On whatever machine these images are, this is what runs.
fn undecided() -> Decision {
    Decision {
        accel: Accel::Tcg,
        reason: String::new(),
    }
}

impl Images {
    /// The images of this checkout with this kernel and this QEMU, which must have been built, or those of the
    /// archive that this program is in.
    ///
    /// # Errors
    ///
    /// Says which image is missing and how to build it.
    pub fn built(which: &Which) -> Result<Self> {
        if let Some(archive) = archive::here()? {
            return archive.images(which);
        }
        let kernel = which.kernel.built()?;
        let guest = guest::built(&kernel)?;
        Self::join(kernel, which.qemu.built()?, guest).meant_by(which)
    }

    /// Builds what is missing; packages of the host are installed if `install` says so.
    ///
    /// # Errors
    ///
    /// Those of the builds, each with the place of its log.
    pub fn build(which: &Which, install: bool) -> Result<Self> {
        match Self::built(which) {
            Err(_) if archive::here()?.is_none() => {}
            built => return built,
        }
        which.check()?;
        let _lock = Lock::take()?;
        let (kernel, qemu, programs) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let guest = OnceLock::new();
        let whole = Whole::start("Getting ready", which.expected());
        let mut steps = Steps::default();
        // All at once: apt runs once at a time, and takes seconds for what it has nothing to do in.
        let packages = steps.add(&[], || host_packages::ensure(&which.packages(), install));
        let first = [
            steps.add(&[], || set(&kernel, which.kernel.build(install)?)),
            steps.add(&[], || set(&qemu, which.qemu.build(install)?)),
            steps.add(&[], || set(&programs, guest::programs()?)),
            packages,
        ];
        steps.add(&first, || {
            let built = guest::build(made(&kernel)?, made(&programs)?, install);
            set(&guest, built?)
        });
        steps.run().map_err(|error| which.kernel.explain(error))?;
        drop(whole);
        Self::join(taken(kernel)?, taken(qemu)?, taken(guest)?).meant_by(which)
    }

    /// The same, with what is not of the images but of who uses them.
    ///
    /// # Errors
    ///
    /// KVM that does not work. The IOMMU is to translate, and these cannot have it do so.
    pub(crate) fn meant_by(self, which: &Which) -> Result<Self> {
        let images = Images {
            accel: which.decide()?,
            translation: which.translation(),
            ..self
        };
        images.check(images.translation)?;
        Ok(images)
    }

    /// Refuses who cannot translate in VMs of these images.
    ///
    /// # Errors
    ///
    /// One line with all that the kernel and QEMU lack for it.
    pub fn check(&self, translation: Translation) -> Result<()> {
        match translation {
            Translation::Virtqueue => Ok(()),
            Translation::Pcie => pcie::refuse(&self.parts_for_pcie()?),
        }
    }

    /// Kernel and QEMU, each with what it lacks to have the guest's IOMMU translate.
    ///
    /// # Errors
    ///
    /// QEMU does not answer.
    pub fn parts_for_pcie(&self) -> Result<[pcie::Part; 2]> {
        let name = |what: &str, part: &Part| format!("{what} {} ({})", part.version, part.source);
        Ok([
            pcie::Part {
                name: name("Linux", &self.kernel_part),
                lacks: Some(self.kernel_lacks_for_pcie.clone()),
            },
            pcie::Part {
                name: name("QEMU", &self.qemu_part),
                lacks: Some(pcie::of_qemu(&self.qemu)?),
            },
        ])
    }

    /// What VMs in these modes are.
    pub fn machine(&self, modes: &[Mode]) -> Machine {
        Machine::new(self, modes)
    }

    /// The same, each file where `place` says that it is.
    #[must_use]
    pub fn moved(mut self, mut place: impl FnMut(PathBuf) -> PathBuf) -> Self {
        for path in [
            &mut self.kernel,
            &mut self.qemu,
            &mut self.initramfs,
            &mut self.device,
            &mut self.hmm_tests,
            &mut self.engine_bench,
        ]
        .into_iter()
        .chain(&mut self.firmware)
        {
            *path = place(std::mem::take(path));
        }
        self
    }

    /// Images that are nowhere.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let part = Part {
            source: String::new(),
            version: String::new(),
        };
        Images {
            kernel: "kernel".into(),
            kernel_part: part.clone(),
            time_factor: 1,
            kernel_args: None,
            qemu: "qemu".into(),
            qemu_part: part,
            firmware: Vec::new(),
            form: Form::OneFunction,
            accel: undecided(),
            translation: Translation::Virtqueue,
            kernel_lacks_for_pcie: Vec::new(),
            initramfs: "initramfs".into(),
            device: "device".into(),
            hmm_tests: "tests".into(),
            engine_bench: "bench".into(),
            build_seconds: 0.0,
        }
    }

    fn join(kernel: Kernel, qemu: Qemu, guest: guest::Guest) -> Self {
        Images {
            build_seconds: kernel.seconds + qemu.seconds + guest.seconds,
            kernel: kernel.image,
            kernel_part: Part {
                source: kernel.name,
                version: kernel.version,
            },
            time_factor: kernel.config.time_factor(),
            kernel_args: kernel.config.kernel_args().map(str::to_owned),
            qemu: qemu.program,
            qemu_part: Part {
                source: qemu.name,
                version: qemu.version,
            },
            firmware: qemu.firmware,
            form: qemu.form,
            accel: undecided(),
            translation: Translation::Virtqueue,
            kernel_lacks_for_pcie: pcie::of_kernel(&kernel.config),
            initramfs: guest.initramfs,
            device: guest.device,
            hmm_tests: guest.hmm_tests,
            engine_bench: guest.engine_bench,
        }
    }
}

/// Has a step's result be what others find.
fn set<T>(cell: &OnceLock<T>, value: T) -> Result<()> {
    cell.set(value).ok().context("A step has run twice")
}

fn made<T>(cell: &OnceLock<T>) -> Result<&T> {
    cell.get().context("A step has made nothing")
}

fn taken<T>(cell: OnceLock<T>) -> Result<T> {
    cell.into_inner().context("A step has made nothing")
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VM is made of.

use std::path::PathBuf;
use std::time::Duration;

use coax_abi::wire::QUEUE_SIZE;

use crate::job::{Driver, Mode};
use crate::machine::Translation;
use crate::qemu::Form;

/// A size in bytes, read from and written with the binary suffixes `K`, `M` and `G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Bytes(count << 20)
    }

    /// `count` GiB.
    pub const fn gib(count: u64) -> Self {
        Bytes(count << 30)
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fits = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match self.0 {
            bytes if fits(30) => write!(f, "{}G", bytes >> 30),
            bytes if fits(20) => write!(f, "{}M", bytes >> 20),
            bytes if fits(10) => write!(f, "{}K", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is no size: a number with an optional K, M or G");
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 10),
            Some(b'M') => (&text[..text.len() - 1], 20),
            Some(b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let count: u64 = digits
            .parse()
            .map_err(|error| format!("{}: {error}", refuse()))?;
        count.checked_mul(1 << shift).map(Bytes).ok_or_else(refuse)
    }
}

/// Where the job's output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// It is kept in [`super::Outcome`].
    #[default]
    Capture,
    /// It is copied to standard output and error as it comes and not kept, and standard input
    /// goes to the job; on a terminal, key by key.
    Interactive,
}

/// A file put into this VM's root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// Absolute path in the guest; missing folders are made.
    pub path: String,
    /// Contents.
    pub contents: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// A tree of the host that becomes the guest's root file system: read-only, with a layer in the
/// guest's memory that takes what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its top.
    pub folder: PathBuf,
    /// The program that serves it: [`crate::virtiofsd`].
    pub daemon: PathBuf,
}

/// A VM's parts; the defaults are those of `./coax run`.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// How the driver uses device memory.
    pub mode: Mode,
    /// Who translates for the devices.
    pub translation: Translation,
    /// Load the driver before the job starts, and wait for its devices.
    pub load_driver: bool,
    /// Let the driver offer the interface of the kernel's `test_hmm` as well: the first two devices
    /// in private, the others in coherent mode.
    pub hmm: bool,
    /// Let the driver move no page.
    pub no_migration: bool,
    /// Virtual CPUs.
    pub cpus: u32,
    /// System memory.
    pub memory: Bytes,
    /// Devices, each with a back end of its own.
    pub devices: u32,
    /// How they are shown to the guest; `None` for the way of the QEMU.
    pub form: Option<Form>,
    /// Descriptors of each queue of a device that is two functions; one that is one function has
    /// [`QUEUE_SIZE`].
    pub queue_size: u16,
    /// Memory of each device.
    pub device_memory: Bytes,
    /// Engines of a device, each with a command queue.
    pub engines: u16,
    /// Contexts a device can hold.
    pub contexts: u32,
    /// Page requests a device can have outstanding.
    pub page_requests: u32,
    /// The root file system, if it is not the small one that comes with the guest.
    pub tree: Option<Tree>,
    /// Words added to the kernel command line.
    pub kernel_args: Vec<String>,
    /// Longest life of the VM; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Files added to the root file system.
    pub files: Vec<GuestFile>,
    /// Where output goes.
    pub output: Output,
}

impl Default for VmConfig {
    fn default() -> Self {
        VmConfig {
            mode: Mode::Private,
            translation: Translation::Virtqueue,
            load_driver: true,
            hmm: false,
            no_migration: false,
            cpus: 2,
            memory: Bytes::gib(2),
            devices: 1,
            form: None,
            queue_size: QUEUE_SIZE,
            device_memory: Bytes::mib(512),
            engines: 2,
            contexts: 256,
            page_requests: 128,
            tree: None,
            kernel_args: Vec::new(),
            // Under TCG a boot takes 3 s and the longest test a minute.
            timeout: Some(Duration::from_secs(180)),
            files: Vec::new(),
            output: Output::Capture,
        }
    }
}

/// A page of a device has so many bytes of system memory to describe it (the kernel's `struct page`).
const PAGE_DESCRIPTION_BYTES: u64 = 64;
const PAGE_BYTES: u64 = 4096;
/// What a guest needs of system memory beside the descriptions: kernel, root file system, and a program.
const LEAST_REST: Bytes = Bytes::mib(384);

impl VmConfig {
    /// Whether the parts fit together.
    ///
    /// # Errors
    ///
    /// Says what does not fit, and what would.
    pub fn check(&self) -> Result<(), String> {
        self.translation.can_be_in(self.mode)?;
        let device_memory = self.device_memory.0.saturating_mul(self.devices.into());
        let described = device_memory / PAGE_BYTES * PAGE_DESCRIPTION_BYTES;
        let least = Bytes(described.saturating_add(LEAST_REST.0));
        if self.memory >= least {
            return Ok(());
        }
        Err(format!(
            "System memory of {} is too little for {} of device memory, whose description alone takes {}: \
             --memory must be {least} or more",
            self.memory,
            Bytes(device_memory),
            Bytes(described),
        ))
    }

    /// How the guest loads the driver, unless the job does.
    pub fn driver(&self) -> Option<Driver> {
        let numbers = 0..self.devices;
        let mut driver = Driver {
            parameters: vec![format!("mode={}", self.mode.parameter())],
            devices: numbers.clone().map(|n| format!("coax{n}")).collect(),
        };
        if self.no_migration {
            driver.parameters.push("policy=2".into());
        }
        if self.hmm {
            driver.parameters.push("hmm=1".into());
            let devices = numbers.map(|n| format!("hmm_dmirror{n}"));
            driver.devices.extend(devices);
        }
        self.load_driver.then_some(driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_waited_for() {
        let config = VmConfig {
            devices: 2,
            hmm: true,
            mode: Mode::Coherent,
            ..VmConfig::default()
        };
        let driver = config.driver().expect("it is loaded by default");
        assert_eq!(driver.parameters, ["mode=1", "hmm=1"]);
        let devices = ["coax0", "coax1", "hmm_dmirror0", "hmm_dmirror1"];
        assert_eq!(driver.devices, devices);
        let config = VmConfig {
            hmm: false,
            no_migration: true,
            ..config
        };
        let driver = config.driver().expect("it is loaded by default");
        assert_eq!(driver.parameters, ["mode=1", "policy=2"]);
        let config = VmConfig {
            load_driver: false,
            ..config
        };
        assert_eq!(config.driver(), None);
    }

    #[test]
    fn device_memory_that_system_memory_cannot_describe_is_refused() {
        let config = |memory, device_memory, devices| VmConfig {
            memory,
            device_memory,
            devices,
            ..VmConfig::default()
        };
        for (memory, device_memory, devices) in [
            (Bytes::mib(512), Bytes::mib(512), 4),
            (Bytes::mib(512), Bytes::gib(8), 1),
            (Bytes::gib(2), Bytes::gib(64), 1),
            (Bytes::gib(20), Bytes::gib(256), 4),
        ] {
            assert_eq!(config(memory, device_memory, devices).check(), Ok(()));
        }
        for (memory, device_memory, devices) in [
            (Bytes::mib(512), Bytes::gib(64), 1),
            (Bytes::mib(512), Bytes::gib(4), 4),
            (Bytes::gib(2), Bytes::gib(256), 4),
        ] {
            let refused = config(memory, device_memory, devices).check();
            let text = refused.expect_err("it does not fit");
            for word in [memory.to_string(), "--memory must be".into()] {
                assert!(text.contains(&word), "{text}");
            }
        }
    }

    #[test]
    fn private_memory_is_not_for_an_iommu() {
        let config = |mode| VmConfig {
            mode,
            translation: Translation::Pcie,
            ..VmConfig::default()
        };
        let refused = config(Mode::Private).check();
        let text = refused.expect_err("private pages have no address");
        assert!(text.contains("--mode coherent"), "{text}");
        for mode in [Mode::Coherent, Mode::Numa] {
            assert_eq!(config(mode).check(), Ok(()));
        }
    }

    #[test]
    fn sizes_are_read_and_written_with_binary_suffixes() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("4K", 4096),
            ("17", 17),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn bad_sizes_are_refused() {
        for text in ["", "M", "-1G", "1.5G", "16Q", "99999999999G"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?} was taken");
        }
    }
}

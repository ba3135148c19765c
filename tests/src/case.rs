// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a test case is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest run of a case that names no limit of its own: far over what any takes under TCG on
/// a busy host, short enough that a hang is seen the same minute.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Environment variable of the guest program: how many times as long as they say limits are,
/// because the kernel is slower than the base.
pub const TIME_FACTOR_VARIABLE: &str = "COAX_TIME_FACTOR";

/// How device memory is known to the guest kernel; the driver's module parameter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Mode {
    /// Device-private memory: a CPU access brings the page back.
    Private,
    /// Device-coherent memory: the CPU accesses it in place.
    Coherent,
    /// A memory node: ordinary memory, whose pages the kernel moves when asked.
    Numa,
}

impl Mode {
    /// All modes, in the order in which they are run.
    pub const ALL: [Mode; 3] = [Mode::Private, Mode::Coherent, Mode::Numa];
    /// Those in which the driver moves pages, and when the device touches them unless told otherwise.
    pub const MOVING: [Mode; 2] = [Mode::Private, Mode::Coherent];

    /// The mode's name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Private => "private",
            Mode::Coherent => "coherent",
            Mode::Numa => "numa",
        }
    }

    /// The value of the driver's parameter `mode`, which is also what `IOC_INFO` reports.
    pub const fn parameter(self) -> u32 {
        match self {
            Mode::Private => coax_abi::uapi::MODE_PRIVATE,
            Mode::Coherent => coax_abi::uapi::MODE_COHERENT,
            Mode::Numa => coax_abi::uapi::MODE_NUMA,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("Unknown mode {text:?}: private, coherent and numa are known"))
    }
}

/// The VM that a case needs. Cases of one kind and mode share a VM, in the order of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Vm {
    /// The driver is loaded and device memory is larger than anything the cases move.
    Standard,
    /// Device memory is 64 MiB (as a node 128 MiB), less than the data.
    SmallDevice,
    /// There are two devices.
    TwoDevices,
    /// There is one virtual CPU.
    OneCpu,
    /// The root file system is that of the host, and cases start in the folder of
    /// [`crate::witness`].
    Tree,
    /// The driver is loaded, and the case takes it away; it leaves it loaded when it passes.
    Lifecycle,
    /// The device is two PCI functions, as an unpatched QEMU has it.
    TwoFunctions,
    /// There are two such devices.
    FourFunctions,
    /// The device is two functions, and its queues have four descriptors each.
    SmallQueues,
    /// The device does wrong what [`crate::deviation`] has the case say.
    DeviantDevice,
    /// The case loses the back end; nothing else runs in this VM.
    Doomed,
    /// The same, when the back end has stopped before.
    DoomedStalled,
    /// The same, with pages on their way.
    DoomedMoving,
    /// The same, for a program that does not know that there is one.
    DoomedUnseen,
}

impl Vm {
    /// All kinds, in the order in which they are run.
    pub const ALL: [Vm; 14] = [
        Vm::Standard,
        Vm::SmallDevice,
        Vm::TwoDevices,
        Vm::OneCpu,
        Vm::Tree,
        Vm::Lifecycle,
        Vm::TwoFunctions,
        Vm::FourFunctions,
        Vm::SmallQueues,
        Vm::DeviantDevice,
        Vm::Doomed,
        Vm::DoomedStalled,
        Vm::DoomedMoving,
        Vm::DoomedUnseen,
    ];

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Vm::Standard => "standard",
            Vm::SmallDevice => "small-device",
            Vm::TwoDevices => "two-devices",
            Vm::OneCpu => "one-cpu",
            Vm::Tree => "tree",
            Vm::Lifecycle => "lifecycle",
            Vm::TwoFunctions => "two-functions",
            Vm::FourFunctions => "four-functions",
            Vm::SmallQueues => "small-queues",
            Vm::DeviantDevice => "deviant-device",
            Vm::Doomed => "doomed",
            Vm::DoomedStalled => "doomed-stalled",
            Vm::DoomedMoving => "doomed-moving",
            Vm::DoomedUnseen => "doomed-unseen",
        }
    }

    /// Virtual CPUs.
    pub const fn cpus(self) -> u32 {
        match self {
            Vm::OneCpu => 1,
            _ => 2,
        }
    }

    /// Devices, each with memory of its own.
    pub const fn devices(self) -> u32 {
        match self {
            Vm::TwoDevices | Vm::FourFunctions => 2,
            _ => 1,
        }
    }

    /// Whether devices are shown as an unpatched QEMU does, whatever QEMU it is.
    pub const fn has_two_functions_a_device(self) -> bool {
        matches!(self, Vm::TwoFunctions | Vm::FourFunctions | Vm::SmallQueues)
    }

    /// Descriptors of each queue.
    pub const fn queue_size(self) -> u16 {
        match self {
            Vm::SmallQueues => 4,
            _ => coax_abi::wire::QUEUE_SIZE,
        }
    }

    /// Whether its cases lose the back end.
    pub const fn loses_back_end(self) -> bool {
        match self {
            Vm::Doomed | Vm::DoomedStalled | Vm::DoomedMoving | Vm::DoomedUnseen => true,
            Vm::Standard
            | Vm::SmallDevice
            | Vm::TwoDevices
            | Vm::OneCpu
            | Vm::Tree
            | Vm::Lifecycle
            | Vm::TwoFunctions
            | Vm::FourFunctions
            | Vm::SmallQueues
            | Vm::DeviantDevice => false,
        }
    }

    /// Memory of each device in MiB.
    pub const fn device_memory_mib(self, mode: Mode) -> u64 {
        match (self, mode) {
            // The least that can be a node's.
            (Vm::SmallDevice, Mode::Numa) => 128,
            (Vm::SmallDevice, _) => 64,
            _ => 512,
        }
    }
}

/// What the guest half of a case says: nothing, or why it failed ([`Skip`] for a skip).
pub type CaseResult = anyhow::Result<()>;

/// The case does not apply here, for the reason given.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// One test case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Behaviour and outcome; unique within the subject.
    pub name: &'static str,
    /// What it shows, in one sentence.
    pub shows: &'static str,
    /// Modes it applies to.
    pub modes: &'static [Mode],
    /// The VM it needs.
    pub vm: Vm,
    /// Longest run.
    pub limit: Duration,
    /// The guest half.
    pub run: fn() -> CaseResult,
}

impl Case {
    /// A case for every mode in a standard VM with the default limit.
    pub const fn new(name: &'static str, shows: &'static str, run: fn() -> CaseResult) -> Self {
        Case {
            name,
            shows,
            modes: &Mode::ALL,
            vm: Vm::Standard,
            limit: DEFAULT_LIMIT,
            run,
        }
    }

    /// The same case in another VM.
    pub const fn in_vm(mut self, vm: Vm) -> Self {
        self.vm = vm;
        self
    }

    /// The same case for these modes alone.
    pub const fn modes(mut self, modes: &'static [Mode]) -> Self {
        self.modes = modes;
        self
    }

    /// The same case with another limit.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// Makes a [`Case`] of a function, under the function's name.
#[macro_export]
macro_rules! case {
    ($function:ident, $shows:literal) => {
        $crate::case::Case::new(stringify!($function), $shows, $function)
    };
}

/// The cases of one file.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The file's name.
    pub name: &'static str,
    /// Its cases, in the order in which they are run.
    pub cases: &'static [Case],
}

/// A case with its subject.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The subject's name.
    pub subject: &'static str,
    /// The case.
    pub case: &'static Case,
}

impl Entry {
    /// `subject.name`, unique among all cases.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.subject, self.case.name)
    }

    /// Whether the case is one of those meant: every one if no filter is given, else those
    /// whose full name contains one of the filters.
    pub fn selected_by(&self, filters: &[String]) -> bool {
        let name = self.full_name();
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

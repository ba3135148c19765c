// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device as cases use it: commands on mapped memory, each with a limit.

// UNSAFETY: commands name bare addresses.
#![expect(unsafe_code)]

use std::ops::{Deref, Range};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use coax::{
    Access, Command, CommandId, Completion, Context, Error, Failure, PageRange, Policy, Residency,
};

use super::memory::{Mapping, PAGE};
use super::wait::on_this_kernel;

/// Longest wait for a command, 50 s: the longest touch several times the device memory page by
/// page. Shorter than the limit of a case, so that it is the command that is reported.
const COMMAND_LIMIT: Duration = Duration::from_secs(50);

/// What a command came to.
pub type Outcome = Result<Completion, Error>;

/// An open device.
#[derive(Debug)]
pub struct Device(Context);

impl Deref for Device {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl Device {
    /// Opens the first device.
    pub fn open() -> Result<Self, Error> {
        Context::open().map(Device)
    }

    /// Opens the first device, for a context whose pages move when the device touches them, in every mode.
    pub fn open_moving() -> Result<Self, Error> {
        let device = Device::open()?;
        device.set_policy(Policy::OnFault, None)?;
        Ok(device)
    }

    /// Opens the device of this number.
    pub fn open_number(number: u32) -> Result<Self, Error> {
        Context::open_path(format!("/dev/coax{number}")).map(Device)
    }

    /// Starts a command whose addresses are of [`Mapping`]s, or where nothing of this process
    /// lies; a mapping lives until the command was collected or the case ends.
    pub fn start(&self, command: Command) -> Result<CommandId, Error> {
        // SAFETY:
        // - There are no references into a mapping, and accesses to it are copies or atomic.
        // - A mapping that goes while a command runs leaves no address behind that the device
        //   may use: that is what the cases test.
        unsafe { self.0.submit(command) }
    }

    /// Collects a command within the limit for commands.
    pub fn finish(&self, id: CommandId) -> Outcome {
        self.0.wait(id, Some(on_this_kernel(COMMAND_LIMIT)))
    }

    /// Runs a command to its end.
    pub fn run(&self, command: Command) -> Outcome {
        self.finish(self.start(command)?)
    }

    /// Stores the 64-bit pattern over a range of the mapping.
    pub fn fill(&self, mapping: &Mapping, range: Range<usize>, pattern: u64) -> Outcome {
        self.run(Command::fill(
            mapping.at(range.start),
            range.len() as u64,
            pattern,
        ))
    }

    /// Copies the whole of one mapping over the start of another.
    pub fn copy(&self, to: &Mapping, from: &Mapping) -> Outcome {
        self.run(Command::copy(
            to.address(),
            from.address(),
            from.len() as u64,
        ))
    }

    /// SHA-256 of the mapping as the device sees it.
    pub fn digest(&self, mapping: &Mapping) -> Result<[u8; 32]> {
        let command = Command::sha256(mapping.address(), mapping.len() as u64);
        Ok(self.run(command).context("SHA-256 by the device")?.result)
    }

    /// Moves all pages of the mapping to the device and demands that they got there.
    pub fn take(&self, mapping: &Mapping) -> Result<()> {
        let migrated = self.prefetch(range_of(mapping)).context("Prefetch")?;
        let there = self.device_pages(mapping)?;
        ensure!(
            there == mapping.pages(),
            "{there} of {} pages are on the device after {migrated:?}",
            mapping.pages(),
        );
        Ok(())
    }

    /// Pages of the mapping that are on the device.
    pub fn device_pages(&self, mapping: &Mapping) -> Result<u64> {
        Ok(self.where_is(mapping)?.device)
    }

    /// Where the mapping's pages are.
    pub fn where_is(&self, mapping: &Mapping) -> Result<Residency> {
        self.residency(range_of(mapping)).context("Residency")
    }
}

/// All pages of the mapping.
pub fn range_of(mapping: &Mapping) -> PageRange {
    PageRange::new(mapping.address(), mapping.len() as u64)
}

/// Demands that the command was refused this access to this page.
pub fn faulted(outcome: Outcome, address: u64, access: Access) -> Result<Failure> {
    let failure = match outcome {
        Err(Error::Command(failure)) => failure,
        other => bail!("Expected a fault at {address:#x}, got {other:?}"),
    };
    let Some(fault) = failure.fault else {
        bail!("Expected a fault at {address:#x}, got {failure:?}");
    };
    ensure!(
        fault.address / PAGE as u64 == address / PAGE as u64 && fault.access == Some(access),
        "Expected a {access} fault on the page of {address:#x}, got {failure:?}",
    );
    Ok(failure)
}

/// Demands that the call failed with this errno.
pub fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, Error>, errno: i32) -> Result<()> {
    match result {
        Err(error) if error.errno() == errno => Ok(()),
        Err(error) => {
            let expected = std::io::Error::from_raw_os_error(errno);
            Err(error).with_context(|| format!("{what}: expected {expected}"))
        }
        Ok(value) => bail!("{what}: was not refused but gave {value:?}"),
    }
}

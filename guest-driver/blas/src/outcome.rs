// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What became of a call, and why a part was not done by the device.
#![forbid(unsafe_code)]

use coax::{Error, Status};

/// Why the CPU did a call, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is too small to be worth it, by its operations alone.
    Small,
    /// By measurement the CPU is sooner done with it.
    Slower,
    /// The arguments are the library's own business: wrong, nothing to do, overlapping, misaligned.
    Arguments,
    /// There is no device, or no right to it.
    Absent,
    /// The device cannot access memory that the call names.
    Fault,
    /// The driver had no room for the command, or there was no memory for a copy of C.
    Busy,
    /// The device was taken out of service, or failed otherwise.
    Lost,
}

impl Reason {
    /// All of them, in the order of their counters.
    pub const ALL: [Reason; 7] = [
        Reason::Small,
        Reason::Slower,
        Reason::Arguments,
        Reason::Absent,
        Reason::Fault,
        Reason::Busy,
        Reason::Lost,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Small => "small",
            Reason::Slower => "slower",
            Reason::Arguments => "arguments",
            Reason::Absent => "absent",
            Reason::Fault => "fault",
            Reason::Busy => "busy",
            Reason::Lost => "lost",
        }
    }

    /// What a failure of the device means.
    pub fn of(error: &Error) -> Self {
        if let Some(failure) = error.failure() {
            return match failure.status {
                Status::Fault | Status::ResponseFailure | Status::BadGpa => Reason::Fault,
                Status::BadArgument => Reason::Arguments,
                Status::Busy => Reason::Busy,
                _ => Reason::Lost,
            };
        }
        match error.errno() {
            libc::EBUSY | libc::ENOMEM | libc::ENOSPC => Reason::Busy,
            _ => Reason::Lost,
        }
    }
}

/// What became of the parts of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Products done by the device.
    pub on_device: u64,
    /// The first failure; what comes after it is done by the CPU.
    pub failure: Option<Reason>,
}

impl Outcome {
    /// Notes a failure, unless it is not the first.
    pub fn failed(&mut self, reason: Reason) {
        self.failure.get_or_insert(reason);
    }
}

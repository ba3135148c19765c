// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong, with the address and the errno of each case.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::path::PathBuf;

use coax_abi::{uapi, wire};

/// An error of this library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device file cannot be opened.
    #[error("Cannot open {}", path.display())]
    Open {
        /// The device file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Driver and library do not speak the same version of the ioctls.
    #[error(
        "Driver speaks ioctl version {found}, this library version {}",
        uapi::UAPI_VERSION
    )]
    Version {
        /// What the driver reports.
        found: u32,
    },
    /// The driver, or the kernel, refused a call.
    #[error("{call} was refused")]
    Call {
        /// Name of the ioctl, as in `coax.h`, or of the system call.
        call: &'static str,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The device could not do a command.
    #[error(transparent)]
    Command(#[from] Failure),
    /// The command is not done yet; it can still be collected.
    #[error("Command was not done in time")]
    TimedOut,
    /// An argument was refused before the device was asked.
    #[error("Bad argument: {0}")]
    Argument(&'static str),
}

impl Error {
    /// The error as an errno, for C callers and `std::io`.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Open { source, .. } | Self::Call { source, .. } => {
                source.raw_os_error().unwrap_or(libc::EIO)
            }
            Self::Version { .. } => libc::EPROTO,
            Self::Command(failure) => failure.status.errno(),
            Self::TimedOut => libc::ETIMEDOUT,
            Self::Argument(_) => libc::EINVAL,
        }
    }

    /// The failed command, if it is one that failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Command(failure) => Some(failure),
            _ => None,
        }
    }

    /// The address that the device could not access, if that is the reason.
    pub fn fault_address(&self) -> Option<u64> {
        Some(self.failure()?.fault?.address)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::from_raw_os_error(error.errno())
    }
}

/// A command that ended with another status than "done".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub status: Status,
    /// Where, with [`Status::Fault`] and [`Status::ResponseFailure`].
    pub fault: Option<Fault>,
    /// Bytes of the destination (of the source, where there is none) that are done; nothing
    /// beyond them was written.
    pub bytes_done: u64,
    /// Page requests that the command waited for.
    pub page_requests: u64,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Device command failed after {} bytes: {}",
            self.bytes_done, self.status
        )?;
        match self.fault {
            Some(Fault {
                address,
                access: Some(access),
            }) => {
                write!(f, " ({access} at {address:#x})")
            }
            Some(Fault {
                address,
                access: None,
            }) => write!(f, " (at {address:#x})"),
            None => Ok(()),
        }
    }
}

/// The access that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Virtual address of this process.
    pub address: u64,
    /// What the device wanted to do there, if it says.
    pub access: Option<Access>,
}

/// Kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store, or both.
    Write,
    /// An atomic operation.
    Atomic,
}

impl Access {
    /// From `ACCESS_*` bits; `None` if no bit is set.
    pub fn from_bits(bits: u32) -> Option<Self> {
        if bits & wire::ACCESS_ATOMIC != 0 {
            Some(Self::Atomic)
        } else if bits & wire::ACCESS_WRITE != 0 {
            Some(Self::Write)
        } else if bits & wire::ACCESS_READ != 0 {
            Some(Self::Read)
        } else {
            None
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Atomic => "atomic operation",
        })
    }
}

/// Why a command failed: `STATUS_*` of the device ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The device found the message malformed.
    BadMessage,
    /// The device does not know the opcode.
    UnknownOpcode,
    /// The device does not know the context.
    BadContext,
    /// An argument is out of range.
    BadArgument,
    /// The address cannot be accessed as needed.
    Fault,
    /// The driver could not handle the page request.
    ResponseFailure,
    /// The context was closed or the device reset first.
    Aborted,
    /// The driver named memory that the device does not know.
    BadGpa,
    /// A table of the device is full.
    Busy,
    /// The structure in memory is not what the command needs.
    BadData,
    /// A status that this version of the library does not know.
    Other(u32),
}

impl Status {
    /// From the number; `None` for success.
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            wire::STATUS_OK => return None,
            wire::STATUS_BAD_MESSAGE => Self::BadMessage,
            wire::STATUS_UNKNOWN_OPCODE => Self::UnknownOpcode,
            wire::STATUS_BAD_CONTEXT => Self::BadContext,
            wire::STATUS_BAD_ARGUMENT => Self::BadArgument,
            wire::STATUS_FAULT => Self::Fault,
            wire::STATUS_RESPONSE_FAILURE => Self::ResponseFailure,
            wire::STATUS_ABORTED => Self::Aborted,
            wire::STATUS_BAD_GPA => Self::BadGpa,
            wire::STATUS_BUSY => Self::Busy,
            wire::STATUS_BAD_DATA => Self::BadData,
            other => Self::Other(other),
        })
    }

    /// The number.
    pub fn code(self) -> u32 {
        match self {
            Self::BadMessage => wire::STATUS_BAD_MESSAGE,
            Self::UnknownOpcode => wire::STATUS_UNKNOWN_OPCODE,
            Self::BadContext => wire::STATUS_BAD_CONTEXT,
            Self::BadArgument => wire::STATUS_BAD_ARGUMENT,
            Self::Fault => wire::STATUS_FAULT,
            Self::ResponseFailure => wire::STATUS_RESPONSE_FAILURE,
            Self::Aborted => wire::STATUS_ABORTED,
            Self::BadGpa => wire::STATUS_BAD_GPA,
            Self::Busy => wire::STATUS_BUSY,
            Self::BadData => wire::STATUS_BAD_DATA,
            Self::Other(code) => code,
        }
    }

    /// The reason in words, as C callers get it too.
    pub fn reason(self) -> &'static CStr {
        match self {
            Self::BadMessage => c"malformed message",
            Self::UnknownOpcode => c"unknown opcode",
            Self::BadContext => c"unknown context",
            Self::BadArgument => c"argument out of range",
            Self::Fault => c"address not accessible",
            Self::ResponseFailure => c"page request could not be handled",
            Self::Aborted => c"aborted by close or reset",
            Self::BadGpa => c"memory unknown to the device",
            Self::Busy => c"device is busy",
            Self::BadData => c"list without end, or tree too deep",
            Self::Other(_) => c"unknown status",
        }
    }

    /// The errno that a C caller gets.
    pub fn errno(self) -> i32 {
        match self {
            Self::BadArgument => libc::EINVAL,
            Self::UnknownOpcode => libc::EOPNOTSUPP,
            Self::Fault => libc::EFAULT,
            Self::Aborted => libc::ECANCELED,
            Self::Busy => libc::EBUSY,
            Self::BadData => libc::EBADMSG,
            Self::BadMessage | Self::BadContext => libc::EPROTO,
            Self::ResponseFailure | Self::BadGpa | Self::Other(_) => libc::EIO,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason().to_string_lossy())?;
        match self {
            Self::Other(code) => write!(f, " {code}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_survive_the_round_trip() {
        // One past the last known code shows that unknown ones are kept as they are.
        for code in 1..=wire::STATUS_BAD_DATA + 1 {
            let status = Status::from_code(code).map(Status::code);
            assert_eq!(status, Some(code));
        }
        assert_eq!(Status::from_code(wire::STATUS_OK), None);
    }

    #[test]
    fn failures_map_to_the_errno_of_the_contract() {
        assert_eq!(Status::Fault.errno(), libc::EFAULT);
        assert_eq!(Status::Aborted.errno(), libc::ECANCELED);
        assert_eq!(Status::BadArgument.errno(), libc::EINVAL);
        assert_eq!(Status::Other(77).errno(), libc::EIO);
    }

    #[test]
    fn access_is_the_strongest_right_refused() {
        let all = wire::ACCESS_READ | wire::ACCESS_WRITE | wire::ACCESS_ATOMIC;
        assert_eq!(Access::from_bits(all), Some(Access::Atomic));
        let both = wire::ACCESS_READ | wire::ACCESS_WRITE;
        assert_eq!(Access::from_bits(both), Some(Access::Write));
        assert_eq!(Access::from_bits(wire::ACCESS_READ), Some(Access::Read));
        assert_eq!(Access::from_bits(0), None);
    }

    #[test]
    fn fault_text_names_address_access_and_progress() {
        let error = Error::from(Failure {
            status: Status::Fault,
            fault: Some(Fault {
                address: 0x7000,
                access: Some(Access::Write),
            }),
            bytes_done: 4096,
            page_requests: 1,
        });
        assert_eq!(
            error.to_string(),
            "Device command failed after 4096 bytes: address not accessible (write at 0x7000)"
        );
        assert_eq!(error.fault_address(), Some(0x7000));
        assert_eq!(error.errno(), libc::EFAULT);
    }
}

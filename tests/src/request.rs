// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a case asks of the host while it runs.
//!
//! The guest prints a line of its own, which is a diagnostic to any reader of KTAP; the host
//! acts on it at once. There is no answer: the case sees the effect on the device.

use std::fmt;

/// Before the request's name on a line.
const MARK: &str = "host, please: ";

/// An action of the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// Kill the back end, as a crash would.
    KillDevice,
    /// Stop the back end alone, as a debugger or a cgroup's freezer does.
    StopDevice,
    /// Have it go on.
    ContinueDevice,
    /// Unplug it.
    UnplugDevice,
    /// Plug it in again.
    PlugDevice,
    /// Stop device and guest for longer than the driver waits for an answer.
    Stop,
}

impl Request {
    const ALL: [Request; 6] = [
        Request::KillDevice,
        Request::StopDevice,
        Request::ContinueDevice,
        Request::UnplugDevice,
        Request::PlugDevice,
        Request::Stop,
    ];

    /// Name on the line.
    const fn name(self) -> &'static str {
        match self {
            Request::KillDevice => "kill the device",
            Request::StopDevice => "stop the device",
            Request::ContinueDevice => "have the device go on",
            Request::UnplugDevice => "unplug the device",
            Request::PlugDevice => "plug the device in",
            Request::Stop => "stop everything for a while",
        }
    }

    /// The request on this line of the guest's output, if there is one.
    pub fn find(line: &str) -> Option<Request> {
        let (_, name) = line.split_once(MARK)?;
        Request::ALL
            .into_iter()
            .find(|request| request.name() == name.trim_end())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_behind_the_mark_of_a_diagnostic() {
        let line = format!("# {}", Request::KillDevice);
        assert_eq!(Request::find(&line), Some(Request::KillDevice));
        assert_eq!(Request::find("# host, please: make coffee"), None);
        assert_eq!(Request::find("ok 1 a"), None);
    }
}

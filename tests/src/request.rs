// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a case asks of the host while it runs.
//!
//! The guest prints a line of its own, which is a diagnostic to any reader of KTAP; the host
//! acts on it at once. There is no answer: the case sees the effect on the device.

use std::fmt;
use std::time::Duration;

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
    /// Stop the device alone for so long, to the millisecond.
    StopDeviceFor(Duration),
}

/// Before the milliseconds of [`Request::StopDeviceFor`].
const STOP_DEVICE_FOR: &str = "stop the device for ";

impl Request {
    /// Those without a number, each with its name on the line.
    const NAMED: [(Request, &str); 6] = [
        (Request::KillDevice, "kill the device"),
        (Request::StopDevice, "stop the device"),
        (Request::ContinueDevice, "have the device go on"),
        (Request::UnplugDevice, "unplug the device"),
        (Request::PlugDevice, "plug the device in"),
        (Request::Stop, "stop everything for a while"),
    ];

    /// The request on this line of the guest's output, if there is one.
    pub fn find(line: &str) -> Option<Request> {
        let (_, text) = line.split_once(MARK)?;
        let text = text.trim_end();
        if let Some(number) = text.strip_prefix(STOP_DEVICE_FOR) {
            let milliseconds = number.strip_suffix(" ms")?.parse().ok()?;
            return Some(Request::StopDeviceFor(Duration::from_millis(milliseconds)));
        }
        let mut named = Request::NAMED.into_iter();
        named.find_map(|(request, name)| (name == text).then_some(request))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        if let Request::StopDeviceFor(time) = self {
            return write!(f, "{STOP_DEVICE_FOR}{} ms", time.as_millis());
        }
        let named = Request::NAMED.iter().find(|(request, _)| request == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_behind_the_mark_of_a_diagnostic() {
        for (request, _) in Request::NAMED {
            assert_eq!(Request::find(&format!("# {request}")), Some(request));
        }
        let stop = Request::StopDeviceFor(Duration::from_millis(1234));
        assert_eq!(Request::find(&format!("# {stop}")), Some(stop));
        assert_eq!(Request::find("# host, please: make coffee"), None);
        assert_eq!(Request::find("ok 1 a"), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to a VM while it runs.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::back_end::BackEnd;
use super::device::Place;
use super::monitor::Monitor;
use super::vm::{Vm, MONITOR_SOCKET};

/// From the stop of the devices to that of the guest.
const STOP_LAG: Duration = Duration::from_millis(200);
/// From the driver's leave of a device, which programs see first, to QEMU's: pages come back, and a node's memory
/// goes, which takes seconds under TCG.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// How often QEMU is asked whether it has let go of a device.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// What can be done to a running VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Kill the back ends, as a crash would. Their end is then no failure.
    KillDevice,
    /// Stop the back ends, and the guest not, until they are to go on.
    StopDevice,
    /// Have the back ends go on.
    ContinueDevice,
    /// Ask the guest to let the first device go.
    UnplugDevice,
    /// Plug in another in its place, with a back end started anew.
    PlugDevice,
    /// Stop devices and guest for so long, as a host that suspends does.
    Stop(Duration),
    /// Stop the devices alone for so long, as a debugger or a starved host does; the guest goes on
    /// meanwhile, and so does the watcher.
    StopDeviceFor(Duration),
}

/// A part of an action that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop the guest.
    StopGuest,
    /// Have devices and guest go on.
    Continue,
}

impl Vm {
    /// Does it, or its first part.
    pub(super) fn act(&mut self, action: Action) {
        let now = Instant::now();
        match action {
            Action::KillDevice => self.devices.iter_mut().for_each(BackEnd::kill),
            Action::StopDevice => self.signal_devices(Signal::SIGSTOP),
            Action::ContinueDevice => self.signal_devices(Signal::SIGCONT),
            Action::UnplugDevice => self.try_hard(Self::unplug),
            Action::PlugDevice => self.try_hard(Self::plug),
            Action::Stop(time) => {
                // First the devices: what the guest asks of them now has no answer when it stops.
                self.signal_devices(Signal::SIGSTOP);
                self.steps.push((now + STOP_LAG, Step::StopGuest));
                self.steps.push((now + STOP_LAG + time, Step::Continue));
            }
            Action::StopDeviceFor(time) => {
                self.signal_devices(Signal::SIGSTOP);
                self.steps.push((now + time, Step::Continue));
            }
        }
    }

    /// Does what is due.
    pub(super) fn take_due_steps(&mut self, now: Instant) {
        let (due, later) = self.steps.iter().partition(|(time, _)| *time <= now);
        self.steps = later;
        let due: Vec<(Instant, Step)> = due;
        due.iter().for_each(|(_, step)| self.take_step(*step));
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::StopGuest => self.qemu.signal(Signal::SIGSTOP),
            Step::Continue => self.go_on(),
        }
    }

    /// Has everything go on that was stopped, and forgets what was to stop it.
    pub(super) fn go_on(&mut self) {
        self.signal_devices(Signal::SIGCONT);
        self.qemu.signal(Signal::SIGCONT);
    }

    fn signal_devices(&self, signal: Signal) {
        self.devices.iter().for_each(|device| device.signal(signal));
    }

    /// Does something to the VM's hardware; ends the VM if that fails.
    fn try_hard(&mut self, what: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = what(self) {
            self.record.monitor_error = Some(error);
            self.end_within(Duration::ZERO);
        }
    }

    fn monitor(&self) -> io::Result<Monitor> {
        Monitor::new(self.folder.connect(MONITOR_SOCKET)?)
    }

    fn unplug(&mut self) -> io::Result<()> {
        let device = Place::first(0).id();
        self.monitor()?.run(&format!("device_del {device}"))
    }

    /// A connection serves one life of a device: a back end ends with it.
    fn plug(&mut self) -> io::Result<()> {
        let mut monitor = self.monitor()?;
        let begin = Instant::now();
        let mut place = Place {
            number: 0,
            plugged: self.plugged,
        };
        let left = [
            format!("chardev-remove {}", place.connection_id()),
            format!("object_del {}", place.memory_id()),
        ];
        // The guest sees the device go before QEMU has let go of it.
        for command in left {
            while let Err(error) = monitor.run(&command) {
                if begin.elapsed() > LEAVE_LIMIT {
                    return Err(error);
                }
                thread::sleep(ASK_INTERVAL);
            }
        }
        let device = self.devices.first_mut();
        let device = device.ok_or_else(|| io::Error::other("the VM has no device"))?;
        device.start_again(&self.folder)?;
        // QEMU remembers the name of a connection of its command line, and that of memory which was part of a
        // device, beyond their end.
        self.plugged += 1;
        place.plugged = self.plugged;
        monitor.run(&format!(
            "chardev-add {}",
            place.connection(device.socket())
        ))?;
        monitor.run(&format!("object_add {}", place.memory(&self.config)))?;
        let functions = place.functions(&self.config, self.form);
        let mut functions = functions.iter();
        functions.try_for_each(|function| monitor.run(&format!("device_add {function}")))
    }
}

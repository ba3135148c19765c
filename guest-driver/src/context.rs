// SPDX-License-Identifier: GPL-2.0

//! One open file: a process's memory, its commands, its mirror.
//!
//! Teardown, in order, when the file goes or the device does:
//!
//! 1. The device closes the context: its commands end, it holds no translation and asks no more.
//! 2. What it asked and answered until then is taken out of the rings.
//! 3. The context becomes unreachable for interrupts.
//! 4. Its worker and notifier go. A worker may be in a fault that takes long (swap, a slow file
//!    system), so this is done by the reaper and not by the task that closes the file.
//! 5. The number is free again.

use crate::{
    commands::Commands,
    context_table::{ContextId, Entry},
    device::Device,
    faults::Faults,
    ioctl,
    kapi::{
        chardev::OpenFile,
        misc::{process, this_cpu},
        mm, trace,
        virtqueue::Request,
        work::Worker,
    },
    link::{put, CommandTag},
    mirror::Mirror,
    new_worker,
    policy::Rule,
    show, uapi, wire,
};
use kernel::{
    bindings,
    fs::File,
    mm::Mm,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed},
        poll::PollTable,
        Arc,
    },
};

/// Pages that migrate around a fault until the program says otherwise: 64 KiB, as many as the kernel
/// maps around a fault on a file. What the device knows it will need it asks for by itself.
const FAULT_AROUND: u32 = 16;

/// A context.
pub(crate) struct Context {
    /// The device opened.
    pub(crate) device: Arc<Device>,
    /// Which it is to the device.
    pub(crate) id: ContextId,
    /// The process's memory.
    pub(crate) mm: ARef<Mm>,
    /// What the device may have cached.
    pub(crate) mirror: Arc<Mirror>,
    /// Requests of the device.
    pub(crate) faults: Arc<Worker<Faults>>,
    /// Commands not collected.
    pub(crate) commands: Arc<Commands>,
    closed: Atomic<bool>,
}

impl Context {
    /// Whether calls still reach the device.
    ///
    /// # Errors
    ///
    /// `ENODEV`: it was removed. `EPERM`: the caller does not share the context's memory.
    pub(crate) fn check(&self) -> Result {
        if !self.device.is_alive() {
            return Err(ENODEV);
        }
        if !mm::is_current(&self.mm) {
            return Err(EPERM);
        }
        Ok(())
    }

    /// Hands a command to the device and returns its identifier.
    ///
    /// # Errors
    ///
    /// `EBUSY`: too many in flight. `EIO`: the device is broken. `ENOMEM`.
    pub(crate) fn submit(&self, opcode: u32, arg: &[u64; wire::COMMAND_ARGS]) -> Result<u64> {
        let id = self.commands.begin()?;
        let sent = self.send(opcode, arg, id);
        if sent.is_err() {
            self.commands.cancel(id);
        }
        sent.map(|()| id)
    }

    fn send(&self, opcode: u32, arg: &[u64; wire::COMMAND_ARGS], id: u64) -> Result {
        let tag = CommandTag {
            context: self.id,
            id,
        };
        let mut message = Request::new(
            size_of::<wire::Command>(),
            size_of::<wire::CommandReply>(),
            tag,
            GFP_KERNEL,
        )?;
        put(
            &mut message,
            0,
            &wire::Command {
                opcode: opcode.into(),
                context: self.id.number.into(),
                generation: self.id.generation.into(),
                reserved: 0.into(),
                arg: arg.map(Into::into),
            },
        )?;
        self.faults.data().cpu.store(this_cpu(), Relaxed);
        trace::command(self.id.number, opcode, id);
        self.mirror.stats.commands.add(1);
        self.device
            .link
            .command(message)
            .map_err(|e| if e == ENOSPC { EBUSY } else { e })
    }

    /// Has the device do a command, and waits for it. One that a signal interrupts goes on and is
    /// forgotten.
    ///
    /// # Errors
    ///
    /// `EINTR`: a signal came. Those of [`Self::submit`] and [`Commands::collect`].
    pub(crate) fn run(
        &self,
        opcode: u32,
        arg: &[u64; wire::COMMAND_ARGS],
    ) -> Result<wire::CommandReply> {
        let id = self.submit(opcode, arg)?;
        let link = &self.device.link;
        link.poll_command(self.id.number, || self.commands.any_done());
        let reply = self.commands.collect(id, None);
        if reply.is_err() {
            self.commands.abandon(id);
        }
        reply
    }

    /// Closes the context on the device; later calls do nothing.
    pub(crate) fn close(&self) {
        if self.closed.xchg(true, Full) {
            return;
        }
        let link = &self.device.link;
        link.close_context(self.id, &self.commands);
        drop(link.contexts.withdraw(self.id));
        link.contexts.release(self.id.number);
    }
}

impl OpenFile for Context {
    type Device = Device;

    fn open(device: &Arc<Device>) -> Result<Arc<Self>> {
        if !device.is_alive() {
            return Err(ENODEV);
        }
        let mm = mm::current().ok_or(EINVAL)?;
        let user = mm.mmget_not_zero().ok_or(ESRCH)?;
        let link = &device.link;
        let number = link.contexts.reserve()?;
        let id = link
            .open_context(number)
            .inspect_err(|_| link.contexts.release(number))?;
        let opened = (|| {
            let rule = Rule {
                policy: device.first_policy(),
                fault_around: FAULT_AROUND,
            };
            let mirror = Mirror::new(link.clone(), id, rule)?;
            let faults = Faults::new(device.clone(), &user, mirror.clone())?;
            let faults = Arc::pin_init(new_worker!(faults, "coax_faults"), GFP_KERNEL)?;
            let commands = Commands::new(device.next_command_base())?;
            let context = Context {
                device: device.clone(),
                id,
                mm: mm.clone(),
                mirror,
                faults: faults.clone(),
                commands: commands.clone(),
                closed: Atomic::new(false),
            };
            let context = Arc::new(context, GFP_KERNEL)?;
            link.contexts.publish(
                id,
                Entry {
                    faults,
                    commands,
                    process: process(),
                },
            );
            Ok(context)
        })();
        if opened.is_err() {
            // The number of a context that stays open on a broken device is of no use either.
            let _ = link.control(wire::CONTROL_CONTEXT_CLOSE, Some(id), 0, 0, &mut []);
            link.contexts.release(number);
        }
        opened
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        self.check()?;
        ioctl::dispatch(self, cmd, arg)
    }

    fn poll(&self, file: &File, table: &PollTable<'_>) -> u32 {
        table.register_wait(file, &self.commands.changed);
        if !self.device.is_alive() {
            return bindings::POLLERR | bindings::POLLHUP;
        }
        if self.commands.any_done() {
            bindings::POLLIN | bindings::POLLRDNORM
        } else {
            0
        }
    }

    fn show(&self, to: &SeqFile) {
        show::file(self, to);
    }

    fn release(&self) {
        self.close();
        self.device.reap(self.faults.clone());
    }
}

/// Opcode and arguments of a submission, checked as far as the driver must: the device checks the
/// rest, and addresses are checked where they are translated.
///
/// # Errors
///
/// `EINVAL`: a reserved field is set.
pub(crate) fn checked(submit: &uapi::Submit) -> Result<(u32, &[u64; wire::COMMAND_ARGS])> {
    if submit.reserved != 0 {
        return Err(EINVAL);
    }
    Ok((submit.opcode, &submit.arg))
}

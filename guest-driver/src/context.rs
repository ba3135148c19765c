// SPDX-License-Identifier: GPL-2.0

//! One open file: a process's memory, its commands, its mirror. `ending` says how it ends.

use crate::{
    commands::Commands,
    context_table::{ContextId, Entry, User},
    device::Device,
    ending::{self, Means},
    faults::Faults,
    ioctl,
    kapi::{
        chardev::OpenFile,
        irqlock::IrqSpinLock,
        misc::{may_exceed, process, this_cpu, user},
        mm,
        sva::Binding,
        trace,
        virtqueue::Request,
        work::Worker,
    },
    lifetime::Lifetime,
    link::{put, CommandTag, Patience},
    mirror::Mirror,
    new_irqlock, new_worker,
    policy::Rule,
    show, uapi, wire,
};
use kernel::{
    bindings,
    fs::File,
    mm::{Mm, MmWithUser},
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, atomic::Relaxed, poll::PollTable, Arc},
};

/// Pages that migrate around a fault until the program says otherwise: 64 KiB, as many as the kernel
/// maps around a fault on a file. What the device knows it will need it asks for by itself.
const FAULT_AROUND: u32 = 16;

/// A context.
#[pin_data]
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
    // None when the file is being closed.
    #[pin]
    means: IrqSpinLock<Option<Means>>,
}

impl Context {
    /// Whether calls still reach the device.
    ///
    /// # Errors
    ///
    /// `ENODEV`: it was removed. `EPERM`: the caller does not share the context's memory.
    pub(crate) fn check(&self) -> Result {
        if self.device.link.lifetime.is_leaving() {
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
    /// `EBUSY`: too many in flight. `EIO`: the device is silent. `ENOMEM`.
    pub(crate) fn submit(&self, opcode: u32, arg: &[u64; wire::COMMAND_ARGS]) -> Result<u64> {
        let id = self.commands.begin(opcode != wire::OP_NOP)?;
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
            .command(message, self.commands.in_flight())
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
        link.look_out(self.id.number, &self.faults, || self.commands.may_ask(id));
        let reply = self.commands.collect(id, None);
        if reply.is_err() {
            self.commands.abandon(id);
        }
        reply
    }

    /// Waits until all is done that the device has told of so far: where pages are is known then, as it is after a
    /// command where its faults move them.
    pub(crate) fn settle(&self) {
        if self.mirror.by_iommu {
            self.device.link.take(wire::QUEUE_REQUEST);
            self.faults.flush();
        }
    }

    /// What a context that the device has opened needs, for `user`, which is the caller's memory.
    fn build(
        device: &Arc<Device>,
        id: ContextId,
        user: &MmWithUser,
        by_iommu: bool,
        means: &mut Option<Means>,
    ) -> Result<Arc<Self>> {
        let rule = Rule {
            policy: device.first_policy(),
            fault_around: FAULT_AROUND,
        };
        let mirror = Mirror::new(device.link.clone(), id, rule, by_iommu)?;
        let faults = Faults::new(device.clone(), user, mirror.clone())?;
        let faults = Arc::pin_init(new_worker!(faults, "coax_faults"), GFP_KERNEL_ACCOUNT)?;
        let commands = Commands::new(device.next_command_base())?;
        let mm: &Mm = user;
        Arc::pin_init(
            pin_init!(Self {
                device: device.clone(),
                id,
                mm: ARef::from(mm),
                mirror,
                faults,
                commands,
                means <- new_irqlock!(means.take(), "coax_means"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

impl OpenFile for Context {
    type Device = Device;

    fn open(device: &Arc<Device>) -> Result<Arc<Self>> {
        let link = &device.link;
        let guard = Lifetime::enter(&link.lifetime)?;
        let mm = mm::current().ok_or(EINVAL)?;
        let users_mm = mm.mmget_not_zero().ok_or(ESRCH)?;
        let means = Means::new()?;
        let counts_for = User {
            id: user(),
            exempt: may_exceed(),
        };
        let number = link.contexts.reserve(&counts_for)?;
        let release = |_: &Error| link.contexts.release(number);
        let mut binding = device.bind_caller();
        let id = loop {
            let pasid = binding.as_ref().map(Binding::pasid);
            let opening = link.begin_open(number, pasid).inspect_err(release)?;
            let answer = match link.finish_by(opening, Patience::Killable) {
                Ok(answer) => answer,
                Err(opening) => {
                    ending::abandon(link, number, opening, means, binding, guard);
                    return Err(EINTR);
                }
            };
            match link.opened(number, &answer) {
                Err(error) if error == EINVAL && binding.is_some() => {
                    device.falls_back("the device refuses", error);
                    binding = None;
                }
                opened => break opened.inspect_err(release)?,
            }
        };
        let binding = match binding.map(|binding| Arc::new(binding, GFP_KERNEL_ACCOUNT)) {
            Some(Err(_)) => {
                ending::undo(link, id, Some(means));
                return Err(ENOMEM);
            }
            Some(Ok(binding)) => Some(binding),
            None => None,
        };
        let mut means = Some(means);
        let built = Self::build(device, id, &users_mm, binding.is_some(), &mut means);
        match &built {
            Ok(context) => {
                link.contexts.publish(
                    id,
                    Entry {
                        faults: context.faults.clone(),
                        commands: context.commands.clone(),
                        process: process(),
                        _binding: binding,
                    },
                );
                context.faults.data().watch();
            }
            Err(_) => ending::undo(link, id, means),
        }
        built
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        self.check()?;
        ioctl::dispatch(self, cmd, arg)
    }

    fn poll(&self, file: &File, table: &PollTable<'_>) -> u32 {
        table.register_wait(file, &self.commands.changed);
        if self.device.link.lifetime.is_leaving() {
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
        let link = &self.device.link;
        // If the driver is leaving the device, it ends all contexts.
        if let Ok(guard) = Lifetime::enter(&link.lifetime) {
            let means = self.means.lock().take();
            if let Some(means) = means {
                ending::end(link, self.id, means, guard);
            }
        }
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

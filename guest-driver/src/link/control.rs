// SPDX-License-Identifier: GPL-2.0

//! Control requests.

use super::{Link, Patience};
use crate::{
    call::{new_message, put, Call, Pending, Reply},
    context_table::ContextId,
    wire,
};
use kernel::prelude::*;

/// No context is meant.
const NONE: ContextId = ContextId {
    number: 0,
    generation: 0,
};

impl Link {
    /// A control request, with the value it is answered with; `reply` bytes may follow that.
    ///
    /// # Errors
    ///
    /// `EINTR`: the caller was killed; the device does it nevertheless. `EIO`: the device is silent or gave no
    /// answer. `EBUSY`, `EINVAL`: it refuses. `ENOMEM`.
    pub(crate) fn control(
        &self,
        opcode: u32,
        arg0: u64,
        arg1: u64,
        reply: &mut [u8],
    ) -> Result<u32> {
        self.control_of(opcode, NONE, arg0, arg1, reply)
    }

    /// Has the device tell where a context uses system memory, after so many accesses to 2 MiB; 0 for never.
    ///
    /// # Errors
    ///
    /// Those of [`Self::control`].
    pub(crate) fn notify(&self, id: ContextId, accesses: u32) -> Result {
        let opcode = wire::CONTROL_CONTEXT_NOTIFY;
        self.control_of(opcode, id, accesses.into(), 0, &mut [])
            .map(drop)
    }

    fn control_of(
        &self,
        opcode: u32,
        id: ContextId,
        arg0: u64,
        arg1: u64,
        reply: &mut [u8],
    ) -> Result<u32> {
        let call = Self::request(opcode, id, arg0, arg1, reply.len())?;
        let pending = self.begin(wire::QUEUE_CONTROL, call)?;
        let answer = self
            .finish_by(pending, Patience::Killable)
            .map_err(|_| EINTR)?;
        self.value(&answer, reply)
    }

    /// Has the device begin to open a context under `number`, which is free on the device. The IOMMU translates
    /// it by `pasid`, or else the driver.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent. `ENOMEM`.
    pub(crate) fn begin_open(&self, number: u32, pasid: Option<u32>) -> Result<Pending> {
        let id = ContextId {
            number,
            generation: 0,
        };
        let (service, pasid) = match pasid {
            Some(pasid) => (wire::SERVICE_PCIE, pasid),
            None => (0, 0),
        };
        let (service, pasid) = (service.into(), pasid.into());
        let call = Self::request(wire::CONTROL_CONTEXT_OPEN, id, service, pasid, 0)?;
        self.begin(wire::QUEUE_CONTROL, call)
    }

    /// The context that the device opened under `number`.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent or gave no answer. `EBUSY`, `EINVAL`: it refuses.
    pub(crate) fn opened(&self, number: u32, answer: &Reply) -> Result<ContextId> {
        let named = match answer.read::<wire::ControlReply>() {
            Some((head, _)) => head.status.get() != wire::STATUS_OK || head.value.get() != 0,
            None => !answer.is_answer(),
        };
        if !named {
            self.stats.device_errors.add(1);
            // Nobody could close what it has opened.
            self.fence("opened a context without saying which");
            return Err(self.lifetime.error());
        }
        let generation = self.value(answer, &mut [])?;
        Ok(ContextId { number, generation })
    }

    /// The request that closes a context, to be made before it is known which.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn closing() -> Result<Call> {
        Self::request(wire::CONTROL_CONTEXT_CLOSE, NONE, 0, 0, 0)
    }

    /// Has the device begin to close a context.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent.
    pub(crate) fn begin_close(&self, mut call: Call, id: ContextId) -> Result<Pending> {
        fill(&mut call, wire::CONTROL_CONTEXT_CLOSE, id, 0, 0)?;
        self.begin(wire::QUEUE_CONTROL, call)
    }

    /// Waits until the device has closed a context, or is silent.
    pub(crate) fn finish_close(&self, pending: Pending) {
        let answer = self.finish(pending);
        self.closed(&answer);
    }

    /// Takes the answer to the closing of a context, after which its memory is let go.
    pub(crate) fn closed(&self, answer: &Reply) {
        let closed = match answer.read::<wire::ControlReply>() {
            // What is not open is closed.
            Some((head, _)) => {
                [wire::STATUS_OK, wire::STATUS_BAD_CONTEXT].contains(&head.status.get())
            }
            None => !answer.is_answer(),
        };
        if !closed {
            self.stats.device_errors.add(1);
            self.fence("does not close a context");
        }
    }

    fn request(opcode: u32, id: ContextId, arg0: u64, arg1: u64, reply: usize) -> Result<Call> {
        let readable = size_of::<wire::ControlRequest>();
        let writable = size_of::<wire::ControlReply>() + reply;
        let mut call = Call::new(new_message(readable, writable, GFP_KERNEL)?, GFP_KERNEL)?;
        fill(&mut call, opcode, id, arg0, arg1)?;
        Ok(call)
    }

    /// What the request was answered with; what the device did not write is zero.
    fn value(&self, answer: &Reply, reply: &mut [u8]) -> Result<u32> {
        let Some((head, rest)) = answer.read::<wire::ControlReply>() else {
            if answer.is_answer() {
                self.stats.device_errors.add(1);
            }
            return Err(self.lifetime.error());
        };
        match head.status.get() {
            wire::STATUS_OK => {
                reply.fill(0);
                for (to, from) in reply.iter_mut().zip(rest) {
                    *to = *from;
                }
                Ok(head.value.get())
            }
            wire::STATUS_BUSY => Err(EBUSY),
            _ => Err(EINVAL),
        }
    }
}

fn fill(call: &mut Call, opcode: u32, id: ContextId, arg0: u64, arg1: u64) -> Result {
    let request = wire::ControlRequest {
        opcode: opcode.into(),
        context: id.number.into(),
        generation: id.generation.into(),
        reserved: 0.into(),
        arg0: arg0.into(),
        arg1: arg1.into(),
    };
    put(&mut call.message, 0, &request)
}

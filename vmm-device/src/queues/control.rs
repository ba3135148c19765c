// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control queue: contexts, settings, counters.
#![forbid(unsafe_code)]

use coax_abi::wire::{
    ControlReply, ControlRequest, DeviceStats, QUEUE_CONTROL, STATUS_BAD_ARGUMENT,
    STATUS_BAD_CONTEXT, STATUS_BAD_MESSAGE, STATUS_OK,
};
use zerocopy::IntoBytes;

use crate::device::Device;
use crate::dma::DeviceMemory;
use crate::message::Control;
use crate::sync::lock;
use crate::transport::port::Sizes;
use crate::transport::serve::Served;

/// Serves the control queue.
pub fn run(device: &Device) {
    let shell = &device.machine.outside;
    let served = Served {
        device,
        queue: QUEUE_CONTROL,
        name: "control",
        sizes: Sizes {
            request: size_of::<ControlRequest>(),
            reply: size_of::<ControlReply>() + size_of::<DeviceStats>(),
        },
        linger: None,
    };
    served.run(|request, room| {
        let head = size_of::<ControlReply>();
        // Without its answer the driver would not know the context that it has opened.
        let request = request.filter(|_| room >= head);
        let control = request
            .ok_or(STATUS_BAD_MESSAGE)
            .and_then(|bytes| device.features.check_control(bytes))
            .and_then(Control::decode);
        let (status, value) = match control.and_then(|control| execute(device, control)) {
            Ok(value) => (STATUS_OK, value),
            Err(status) => (status, 0),
        };
        if let Err(status) = control {
            shell.guest_error(format_args!("control message refused, status {status}"));
        }
        let mut reply = ControlReply {
            status: status.into(),
            value: value.into(),
        }
        .as_bytes()
        .to_vec();
        if control == Ok(Control::Stats) {
            // A driver that knows fewer counters gets those: new ones are added at the end.
            reply.extend_from_slice(shell.stats.snapshot().as_bytes());
            reply.truncate(head + room.saturating_sub(head) / 8 * 8);
        }
        reply
    });
}

/// Does what is asked for and returns the reply's value, or refuses it with a `STATUS_*`.
fn execute(device: &Device, control: Control) -> Result<u32, u32> {
    log::debug!("{control:?}");
    match control {
        Control::SetDeviceMemory { gpa, len } => {
            if gpa.checked_add(len).is_none() {
                return Err(STATUS_BAD_ARGUMENT);
            }
            // A driver begins with this. One before it may have left without a word, and not every front
            // end tells of the reset in between.
            device.close_all();
            *lock(&device.machine.outside.device_memory) = DeviceMemory { gpa, len };
        }
        Control::SetPageRequestAllocation(requests) => {
            if !device.machine.set_allocation(requests) {
                return Err(STATUS_BAD_ARGUMENT);
            }
        }
        Control::ContextOpen { number, pasid } => {
            let opened = device.machine.open(number).ok_or(STATUS_BAD_CONTEXT)?;
            let pcie = &device.machine.outside.service.pcie;
            if pasid.is_some_and(|pasid| !pcie.open(opened, pasid)) {
                device.close(opened);
                return Err(STATUS_BAD_ARGUMENT);
            }
            return Ok(opened.generation);
        }
        Control::ContextClose(context) => {
            if !device.close(context) {
                return Err(STATUS_BAD_CONTEXT);
            }
        }
        Control::ContextNotify { context, threshold } => {
            if !device.machine.notify(context, threshold) {
                return Err(STATUS_BAD_CONTEXT);
            }
        }
        Control::Reset => device.abort_all(),
        Control::Stats => {}
    }
    Ok(0)
}

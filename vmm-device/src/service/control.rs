// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control queue: contexts, settings, counters.
#![forbid(unsafe_code)]

use std::time::Duration;

use coax_abi::wire::{
    ControlReply, ControlRequest, DeviceStats, STATUS_BAD_ARGUMENT, STATUS_BAD_CONTEXT,
    STATUS_BAD_MESSAGE, STATUS_OK,
};
use zerocopy::IntoBytes;

use super::{serve, Limits};
use crate::device::Device;
use crate::dma::DeviceMemory;
use crate::message::Control;
use crate::queue::Ring;
use crate::sync::lock;

/// Serves the control queue.
pub fn run(device: &Device, ring: &Ring) {
    let limits = Limits {
        name: "control",
        max_request: size_of::<ControlRequest>(),
        max_reply: size_of::<ControlReply>() + size_of::<DeviceStats>(),
        linger: Duration::ZERO,
    };
    serve(device, ring, &limits, |_, request, room| {
        let control = request.ok_or(STATUS_BAD_MESSAGE).and_then(Control::decode);
        let status = match control {
            Ok(control) => execute(device, control),
            Err(status) => {
                device.guest_error(format_args!("control message refused, status {status}"));
                status
            }
        };
        let mut reply = ControlReply {
            status: status.into(),
            reserved: 0.into(),
        }
        .as_bytes()
        .to_vec();
        if control == Ok(Control::Stats) {
            // A driver that knows fewer counters gets those: new ones are added at the end.
            reply.extend_from_slice(device.stats.snapshot().as_bytes());
            let head = size_of::<ControlReply>();
            reply.truncate(head + room.saturating_sub(head) / 8 * 8);
        }
        reply
    });
}

fn execute(device: &Device, control: Control) -> u32 {
    log::debug!("{control:?}");
    match control {
        Control::SetDeviceMemory { gpa, len } => {
            if gpa.checked_add(len).is_none() {
                return STATUS_BAD_ARGUMENT;
            }
            *lock(&device.device_memory) = DeviceMemory { gpa, len };
            STATUS_OK
        }
        Control::SetPageRequestAllocation(requests) => {
            if device.pri.set_allocation(requests) {
                STATUS_OK
            } else {
                STATUS_BAD_ARGUMENT
            }
        }
        Control::ContextOpen(number) => context_status(device.contexts.open(number)),
        Control::ContextClose(number) => context_status(device.close(number)),
        Control::Reset => {
            device.abort_all();
            STATUS_OK
        }
        Control::Stats => STATUS_OK,
    }
}

fn context_status(done: bool) -> u32 {
    if done {
        STATUS_OK
    } else {
        STATUS_BAD_CONTEXT
    }
}

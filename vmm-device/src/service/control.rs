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
    serve(device, ring, &limits, |_, request, _| {
        let control = request.ok_or(STATUS_BAD_MESSAGE).and_then(Control::decode);
        let (status, value) = match control.and_then(|control| execute(device, control)) {
            Ok(value) => (STATUS_OK, value),
            Err(status) => (status, 0),
        };
        if let Err(status) = control {
            device.guest_error(format_args!("control message refused, status {status}"));
        }
        let mut reply = ControlReply {
            status: status.into(),
            value: value.into(),
        }
        .as_bytes()
        .to_vec();
        if control == Ok(Control::Stats) {
            reply.extend_from_slice(device.stats.snapshot().as_bytes());
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
            *lock(&device.device_memory) = DeviceMemory { gpa, len };
        }
        Control::SetPageRequestAllocation(requests) => {
            if !device.pri.set_allocation(requests) {
                return Err(STATUS_BAD_ARGUMENT);
            }
        }
        Control::ContextOpen(number) => {
            return device.contexts.open(number).ok_or(STATUS_BAD_CONTEXT);
        }
        Control::ContextClose(context) => {
            if !device.close(context) {
                return Err(STATUS_BAD_CONTEXT);
            }
        }
        Control::Reset => device.abort_all(),
        Control::Stats => {}
    }
    Ok(0)
}

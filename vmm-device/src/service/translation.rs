// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The translation queue: completions, responses and invalidations, strictly in order.
//!
//! One thread takes the messages and finishes each before the next. The driver posts
//! completions and invalidations under one lock, so a translation that is filled here cannot
//! be older than the invalidation that is handled after it.
#![forbid(unsafe_code)]

use std::time::Duration;

use coax_abi::wire::{
    InvalidateReply, TranslationEntry, TranslationMessage, MAX_TRANSLATION_ENTRIES,
    STATUS_BAD_CONTEXT, STATUS_BAD_MESSAGE, STATUS_OK,
};
use zerocopy::IntoBytes;

use super::{serve, Limits};
use crate::context::ContextId;
use crate::device::Device;
use crate::job::Job;
use crate::message::Translations;
use crate::queue::Ring;

/// Serves the translation queue.
pub fn run(device: &Device, ring: &Ring) {
    let limits = Limits {
        name: "translation",
        max_request: size_of::<TranslationMessage>()
            + MAX_TRANSLATION_ENTRIES as usize * size_of::<TranslationEntry>(),
        max_reply: size_of::<InvalidateReply>(),
        linger: Duration::ZERO,
    };
    serve(device, ring, &limits, |_, request, room| {
        let message = request
            .ok_or(STATUS_BAD_MESSAGE)
            .and_then(Translations::decode);
        match message {
            Ok(message) => execute(device, message),
            Err(status) => {
                device.guest_error(format_args!("translation message refused, status {status}"));
                // Only invalidations have room for an answer.
                if room == 0 {
                    Vec::new()
                } else {
                    reply(status)
                }
            }
        }
    });
}

fn execute(device: &Device, message: Translations) -> Vec<u8> {
    log::trace!("{message:x?}");
    match message {
        Translations::Answer {
            context,
            tag,
            code,
            entries,
        } => {
            let step = |job: &mut Job| job.step(device);
            let known = device.pri.answer(context, tag, code, &entries, step);
            if !known && !late(device, context) {
                device.guest_error(format_args!(
                    "context {context}: answer with unknown tag {tag:#x}"
                ));
            }
            Vec::new()
        }
        Translations::Ahead { context, entries } => {
            match device.contexts.get(context) {
                Some(context) => device.stats.atc_evictions.add(context.fill(&entries)),
                None if late(device, context) => {}
                None => device.guest_error(format_args!(
                    "translations ahead for context {context}, which is not open"
                )),
            }
            Vec::new()
        }
        Translations::Invalidate {
            context,
            vpn,
            npages,
        } => {
            let status = match device.contexts.get(context) {
                Some(context) => {
                    context.invalidate(vpn, npages);
                    device.stats.invalidations.bump();
                    STATUS_OK
                }
                None => STATUS_BAD_CONTEXT,
            };
            reply(status)
        }
    }
}

/// Whether a context was closed while the driver's message was on its way.
fn late(device: &Device, context: ContextId) -> bool {
    device.contexts.known(context) && device.contexts.get(context).is_none()
}

fn reply(status: u32) -> Vec<u8> {
    InvalidateReply {
        status: status.into(),
        reserved: 0.into(),
    }
    .as_bytes()
    .to_vec()
}

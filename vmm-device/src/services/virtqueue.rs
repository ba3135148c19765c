// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver as the translation service, through two queues.
//!
//! The *request queue* takes what is to be asked. The *translation queue* brings answers and
//! invalidations, strictly in order: one thread takes the messages and finishes each before the
//! next. The driver posts answers and invalidations under one lock, so a translation that is filled
//! here cannot be older than the invalidation that is handled after it.
#![forbid(unsafe_code)]

use std::time::Instant;

use coax_abi::wire::{
    DeviceRequest, InvalidateReply, TranslationEntry, TranslationMessage, MAX_RANGE_PAGES,
    MAX_TRANSLATION_ENTRIES, NOTIFY_ACCESS, PAGE_SIZE, QUEUE_REQUEST, QUEUE_TRANSLATION,
    REQUEST_PAGE, STATUS_BAD_CONTEXT, STATUS_BAD_MESSAGE, STATUS_OK,
};
use zerocopy::IntoBytes;

use crate::deviations::Deviations;
use crate::device::Device;
use crate::guest_log::GuestLog;
use crate::message::Translations;
use crate::mmu::atc::LEAF_PAGES;
use crate::mmu::ContextId;
use crate::resolve::service::TranslationService;
use crate::resolve::Request;
use crate::stats::Stats;
use crate::sync::Arc;
use crate::transport::port::{Error, Port, Sizes};
use crate::transport::serve::Served;

/// The request queue.
#[derive(Debug)]
pub struct Requests {
    port: Arc<Port>,
    stats: Arc<Stats>,
    log: Arc<GuestLog>,
    deviations: Deviations,
}

impl Requests {
    /// The request queue among these.
    pub fn new(
        ports: &[Arc<Port>],
        stats: Arc<Stats>,
        log: Arc<GuestLog>,
        deviations: Deviations,
    ) -> Self {
        Self {
            port: Arc::clone(&ports[usize::from(QUEUE_REQUEST)]),
            stats,
            log,
            deviations,
        }
    }

    fn failed(&self, error: &Error) {
        self.stats.guest_errors.bump();
        self.log.warn(format_args!("request queue: {error}"));
    }

    /// Pushes a message; asks for a kick if there is no buffer.
    fn push(&self, mut message: DeviceRequest) -> Result<bool, Error> {
        let len = (self.deviations.request)(&mut message);
        let bytes = &message.as_bytes()[..len];
        loop {
            if self.port.push(bytes, |error| self.failed(error))? {
                return Ok(true);
            }
            if !self.port.await_kick()? {
                return Ok(false);
            }
        }
    }

    /// Tells the driver of windows of 2 MiB, each by its first page, that are used as often as it wants to know.
    /// What finds no buffer is not told: requests have none either then.
    pub fn tell(&self, context: ContextId, hot: &[u64]) {
        if hot.is_empty() {
            return;
        }
        for &vpn in hot {
            let message = notification(context, vpn);
            match self
                .port
                .push(message.as_bytes(), |error| self.failed(error))
            {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.failed(&error),
            }
        }
        self.flush();
    }
}

impl TranslationService for Requests {
    fn request(&self, request: &Request) -> bool {
        let pushed = self.push(message(request)).unwrap_or_else(|error| {
            self.failed(&error);
            false
        });
        if pushed {
            self.stats.translation_requests.bump();
        }
        pushed
    }

    fn flush(&self) {
        if let Err(error) = self.port.notify() {
            self.failed(&error);
        }
    }

    fn life(&self) -> u64 {
        self.port.last_life()
    }
}

/// The message for a request: it names the pages that are certain to be needed, and those around
/// that are likely, both up to the next 2 MiB border.
fn message(request: &Request) -> DeviceRequest {
    let Request { tag, context, miss } = request;
    let vpn = miss.va / PAGE_SIZE;
    let to_border = (LEAF_PAGES - vpn % LEAF_PAGES).min(MAX_RANGE_PAGES.into());
    let certain = (miss.va % PAGE_SIZE)
        .saturating_add(miss.bytes)
        .div_ceil(PAGE_SIZE)
        .clamp(1, to_border);
    let around = if miss.around { to_border } else { certain };
    DeviceRequest {
        kind: REQUEST_PAGE.into(),
        context: context.number.into(),
        generation: context.generation.into(),
        tag: (*tag).into(),
        va: (vpn * PAGE_SIZE).into(),
        npages: (certain as u32).into(),
        around: (around as u32).into(),
        flags: miss.access.wire().into(),
        reserved: 0.into(),
    }
}

/// The message for a window.
fn notification(context: ContextId, vpn: u64) -> DeviceRequest {
    DeviceRequest {
        kind: NOTIFY_ACCESS.into(),
        context: context.number.into(),
        generation: context.generation.into(),
        tag: 0.into(),
        va: (vpn * PAGE_SIZE).into(),
        npages: MAX_RANGE_PAGES.into(),
        around: MAX_RANGE_PAGES.into(),
        flags: 0.into(),
        reserved: 0.into(),
    }
}

/// The driver added buffers to the request queue.
pub fn buffers_came(device: &Device) {
    device.machine.send();
}

/// Serves the translation queue.
pub fn run(device: &Device) {
    let served = Served {
        device,
        queue: QUEUE_TRANSLATION,
        name: "translation",
        sizes: Sizes {
            request: size_of::<TranslationMessage>()
                + MAX_TRANSLATION_ENTRIES as usize * size_of::<TranslationEntry>(),
            reply: size_of::<InvalidateReply>(),
        },
        linger: (device.machine.requests_outstanding() > 0).then_some(&device.answer_linger),
    };
    served.run(|request, room| {
        let message = request
            .ok_or(STATUS_BAD_MESSAGE)
            .and_then(|bytes| device.features.check_translations(bytes))
            .and_then(Translations::decode)
            .and_then(|message| match message {
                Translations::Invalidate { .. } if room < size_of::<InvalidateReply>() => {
                    Err(STATUS_BAD_MESSAGE)
                }
                message => Ok(message),
            });
        match message {
            Ok(message) => execute(device, message),
            Err(status) => {
                device
                    .machine
                    .outside
                    .guest_error(format_args!("translation message refused, status {status}"));
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
    let (machine, shell) = (&device.machine, &device.machine.outside);
    match message {
        Translations::Answer {
            context,
            tag,
            code,
            entries,
        } => {
            if machine.answered(context, tag, code, &entries) {
                shell.stats.count_response(code);
            } else if !late(device, context) {
                shell.guest_error(format_args!(
                    "context {context}: answer with unknown tag {tag:#x}"
                ));
            }
            Vec::new()
        }
        Translations::Ahead { context, entries } => {
            if !machine.fill(context, &entries) && !late(device, context) {
                shell.guest_error(format_args!(
                    "translations ahead for context {context}, which is not open"
                ));
            }
            Vec::new()
        }
        Translations::Invalidate {
            context,
            vpn,
            npages,
        } => {
            let began = Instant::now();
            if machine.invalidate(context, vpn, npages) {
                shell.stats.invalidations.bump();
                shell.stats.invalidation_times.record(began.elapsed());
                reply(STATUS_OK)
            } else {
                reply(STATUS_BAD_CONTEXT)
            }
        }
    }
}

/// Whether a context was closed while the driver's message was on its way.
fn late(device: &Device, context: ContextId) -> bool {
    device.machine.mmu.known(context) && device.machine.mmu.get(context).is_none()
}

fn reply(status: u32) -> Vec<u8> {
    InvalidateReply {
        status: status.into(),
        reserved: 0.into(),
    }
    .as_bytes()
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Miss};

    const CONTEXT: ContextId = ContextId {
        number: 9,
        generation: 8,
    };

    fn request(va: u64, bytes: u64, around: bool) -> DeviceRequest {
        message(&Request {
            tag: 4,
            context: CONTEXT,
            miss: Miss {
                va,
                bytes,
                access: Access::READ,
                around,
            },
        })
    }

    /// Pages that are certain and pages around.
    fn pages(message: &DeviceRequest) -> (u32, u32) {
        (message.npages.get(), message.around.get())
    }

    #[test]
    fn requests_cover_the_range_up_to_the_2_mib_border() {
        // One byte beyond a page border needs two pages.
        assert_eq!(pages(&request(0x1fff, 2, false)), (2, 2));
        assert_eq!(pages(&request(0x1000, u64::MAX, false)), (511, 511));
        assert_eq!(pages(&request(0, 1 << 40, false)), (512, 512));
    }

    #[test]
    fn neighbours_are_welcome_but_not_certain() {
        assert_eq!(pages(&request(0x1008, 1, true)), (1, 511));
    }

    #[test]
    fn address_of_a_request_is_that_of_the_page() {
        let message = request(u64::MAX, 1, false);
        assert_eq!(message.va.get(), u64::MAX - 0xfff);
        assert_eq!(pages(&message), (1, 1));
        assert_eq!(message.flags.get(), Access::READ.wire());
        assert_eq!((message.context.get(), message.generation.get()), (9, 8));
        assert_eq!(message.tag.get(), 4);
    }
}

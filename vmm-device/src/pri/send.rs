// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sending of requests, as far as their bounds allow.
//!
//! The state is locked throughout; the ring of the request queue is locked for each message.
#![forbid(unsafe_code)]

use std::time::Instant;

use coax_abi::wire::{DeviceRequest, MAX_RANGE_PAGES, PAGE_SIZE, REQUEST_PAGE};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use zerocopy::IntoBytes;

use super::{Due, Pri, State};
use crate::atc::LEAF_PAGES;
use crate::context::ContextId;
use crate::engine::Miss;
use crate::queue::{self, Ring};

/// Outcome of an attempt to send.
enum Sent {
    /// A request was sent or turned out to be nobody's.
    One,
    /// Nothing is to be sent, or the allocation is used up.
    Nothing,
    /// The request queue has no buffer.
    NoBuffer,
}

impl Pri {
    /// Sends what can be sent.
    pub(super) fn pump(&self, state: &mut State) {
        if state.due.is_empty() {
            return;
        }
        let Some(ring) = state.ring.clone() else {
            return;
        };
        let memory = self.memory.memory();
        let mut sent = false;
        let result = loop {
            match self.send_next(state, &ring, &memory) {
                Ok(Sent::One) => sent = true,
                Ok(Sent::Nothing) => break Ok(()),
                Ok(Sent::NoBuffer) => match more_buffers(&ring, &memory) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        let result = result.and_then(|()| {
            if sent {
                queue::notify(&ring, &memory)?;
            }
            Ok(())
        });
        if let Err(error) = result {
            self.stats.guest_errors.bump();
            self.log.warn(format_args!("request queue: {error}"));
        }
    }

    fn send_next(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Sent, queue::Error> {
        let Some(&Due {
            parked: id, want, ..
        }) = state.due.front()
        else {
            return Ok(Sent::Nothing);
        };
        let Some(context) = state.context(id) else {
            state.due.pop_front();
            return Ok(Sent::One);
        };
        if state.tags.outstanding() >= state.allocation {
            self.defer(state);
            return Ok(Sent::Nothing);
        }
        if queue::available(ring, memory)? == 0 {
            return Ok(Sent::NoBuffer);
        }
        let Ok(tag) = state.tags.give(context, (id, want)) else {
            return Ok(Sent::Nothing);
        };
        let message = request(context, &want.miss, tag);
        let pushed = queue::push(ring, memory, message.as_bytes());
        if !matches!(pushed, Ok(true)) {
            // The driver has not seen it.
            state.tags.answer(tag, context);
            return pushed.map(|_| Sent::NoBuffer);
        }
        state.due.pop_front();
        if let Some(parked) = state.parked.get_mut(&id) {
            parked.asked_at.get_or_insert_with(Instant::now);
        }
        self.stats.translation_requests.bump();
        Ok(Sent::One)
    }

    /// Counts the requests that wait for the allocation, each once.
    fn defer(&self, state: &mut State) {
        for due in state.due.iter_mut().rev().take_while(|due| !due.deferred) {
            due.deferred = true;
            self.stats.requests_deferred.bump();
        }
    }
}

/// Asks for a kick when the driver adds buffers; true if it did so in the meantime.
fn more_buffers(ring: &Ring, memory: &GuestMemoryMmap) -> Result<bool, queue::Error> {
    let before = queue::available(ring, memory)?;
    queue::await_kick(ring, memory)?;
    Ok(queue::available(ring, memory)? != before)
}

/// The message for a miss: it names the pages that are certain to be needed, and those around
/// that are likely, both up to the next 2 MiB border.
fn request(context: ContextId, miss: &Miss, tag: u32) -> DeviceRequest {
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
        tag: tag.into(),
        va: (vpn * PAGE_SIZE).into(),
        npages: (certain as u32).into(),
        around: (around as u32).into(),
        flags: miss.access.wire().into(),
        reserved: 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    const CONTEXT: ContextId = ContextId {
        number: 9,
        generation: 8,
    };

    fn miss(va: u64, bytes: u64, around: bool) -> Miss {
        Miss {
            va,
            bytes,
            access: Access::READ,
            around,
        }
    }

    /// Pages that are certain and pages around.
    fn pages(miss: &Miss) -> (u32, u32) {
        let message = request(CONTEXT, miss, 0);
        (message.npages.get(), message.around.get())
    }

    #[test]
    fn requests_cover_the_range_up_to_the_2_mib_border() {
        // One byte beyond a page border needs two pages.
        assert_eq!(pages(&miss(0x1fff, 2, false)), (2, 2));
        assert_eq!(pages(&miss(0x1000, u64::MAX, false)), (511, 511));
        assert_eq!(pages(&miss(0, 1 << 40, false)), (512, 512));
    }

    #[test]
    fn neighbours_are_welcome_but_not_certain() {
        assert_eq!(pages(&miss(0x1008, 1, true)), (1, 511));
    }

    #[test]
    fn address_of_a_request_is_that_of_the_page() {
        let message = request(CONTEXT, &miss(u64::MAX, 1, false), 4);
        assert_eq!(message.va.get(), u64::MAX - 0xfff);
        assert_eq!((message.npages.get(), message.around.get()), (1, 1));
        assert_eq!(message.flags.get(), Access::READ.wire());
        assert_eq!((message.context.get(), message.generation.get()), (9, 8));
        assert_eq!(message.tag.get(), 4);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sending of requests, as far as their bounds allow.
//!
//! The state is locked throughout; the ring of the request queue is locked for each message.
#![forbid(unsafe_code)]

use std::time::Instant;

use coax_abi::wire::{
    DeviceRequest, MAX_RANGE_PAGES, PAGE_SIZE, REQUEST_LAST, REQUEST_PAGE, REQUEST_TRANSLATION,
};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use zerocopy::IntoBytes;

use super::windows::Want;
use super::{Group, Pri, State};
use crate::atc::LEAF_PAGES;
use crate::engine::Miss;
use crate::job::Verdict;
use crate::queue::{self, Ring};

/// A request that cannot be sent at present.
enum Blocked {
    /// No tag is free, or the allocation is used up.
    Bound,
    /// The request queue has no buffer.
    Buffer,
}

impl Pri {
    /// Sends what can be sent.
    pub(super) fn pump(&self, state: &mut State) {
        if state.translations_due.is_empty() && state.groups_due.is_empty() {
            return;
        }
        let Some(ring) = state.ring.clone() else {
            return;
        };
        let memory = self.memory.memory();
        let mut sent = false;
        let result = loop {
            match self.send_next(state, &ring, &memory) {
                Ok(Ok(())) => sent = true,
                Ok(Err(Blocked::Bound)) => break Ok(()),
                Ok(Err(Blocked::Buffer)) => match more_buffers(&ring, &memory) {
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

    /// Sends one translation request or one page request group.
    fn send_next(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<(), Blocked>, queue::Error> {
        let translation = self.send_translation(state, ring, memory)?;
        if translation.is_ok() {
            return Ok(Ok(()));
        }
        let group = self.send_group(state, ring, memory)?;
        Ok(match (translation, group) {
            (_, Ok(())) => Ok(()),
            (Err(Blocked::Buffer), _) | (_, Err(Blocked::Buffer)) => Err(Blocked::Buffer),
            _ => Err(Blocked::Bound),
        })
    }

    fn send_translation(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<(), Blocked>, queue::Error> {
        let Some((id, want)) = state.translations_due.pop_front() else {
            return Ok(Err(Blocked::Bound));
        };
        let Some(context) = state.context(id) else {
            return Ok(Ok(()));
        };
        if queue::available(ring, memory)? == 0 {
            state.translations_due.push_front((id, want));
            return Ok(Err(Blocked::Buffer));
        }
        let tag = match state.translations.give(context, (id, want)) {
            Ok(tag) => tag,
            Err(due) => {
                state.translations_due.push_front(due);
                return Ok(Err(Blocked::Bound));
            }
        };
        let message = request(REQUEST_TRANSLATION, context, &want.miss, tag, 0);
        if !queue::push(ring, memory, message.as_bytes())? {
            state.translations.answer(tag, context);
            state.translations_due.push_front((id, want));
            return Ok(Err(Blocked::Buffer));
        }
        self.stats.translation_requests.bump();
        Ok(Ok(()))
    }

    fn send_group(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<(), Blocked>, queue::Error> {
        let Some(&id) = state.groups_due.front() else {
            return Ok(Err(Blocked::Bound));
        };
        let Some((context, size)) = state.context(id).zip(state.group_size(id)) else {
            state.groups_due.pop_front();
            return Ok(Ok(()));
        };
        let allowed = state.allocation.saturating_sub(state.outstanding) as usize;
        if allowed < size.least {
            self.defer(state, id, size.most);
            return Ok(Err(Blocked::Bound));
        }
        let buffers = usize::from(queue::available(ring, memory)?);
        if buffers < size.least {
            return Ok(Err(Blocked::Buffer));
        }
        let count = size.most.min(allowed).min(buffers);
        let Some(parked) = state.parked.get_mut(&id) else {
            return Ok(Ok(()));
        };
        let wants: Vec<Want> = parked.lacking.drain(..count).collect();
        let group = Group {
            parked: id,
            wants: wants.clone(),
        };
        let tag = match state.groups.give(context, group) {
            Ok(tag) => tag,
            Err(group) => {
                parked.lacking.splice(..0, group.wants);
                return Ok(Err(Blocked::Bound));
            }
        };
        state.groups_due.pop_front();
        state.outstanding += count as u32;
        parked.asked_at.get_or_insert_with(Instant::now);
        parked.job.page_requests += count as u64;
        for (n, Want { miss, .. }) in wants.iter().enumerate() {
            let last = if n + 1 == count { REQUEST_LAST } else { 0 };
            let message = request(REQUEST_PAGE, context, miss, tag, last);
            if !queue::push(ring, memory, message.as_bytes())? {
                // The driver offered buffers that are too small: the group cannot be completed
                // and is left to its fate; the command ends.
                self.stats.guest_errors.bump();
                state.groups.orphan(|group| group.parked == id);
                state.outstanding -= count as u32;
                self.resume(state, id, Verdict::Failure { va: miss.va });
                return Ok(Ok(()));
            }
            self.stats.page_requests.bump();
        }
        Ok(Ok(()))
    }

    /// Counts the requests of a group that wait for the allocation, once.
    fn defer(&self, state: &mut State, id: u64, count: usize) {
        if let Some(parked) = state.parked.get_mut(&id) {
            if !std::mem::replace(&mut parked.deferred, true) {
                self.stats.requests_deferred.add(count as u64);
            }
        }
    }
}

/// Requests that the next group of a command has.
struct GroupSize {
    /// Those it cannot go on without, as far as a group can hold them; 1 at least.
    least: usize,
    /// All of them, as far as a group can hold them.
    most: usize,
}

impl State {
    fn group_size(&self, id: u64) -> Option<GroupSize> {
        let parked = self.parked.get(&id)?;
        let limit = if parked.singly {
            1
        } else {
            self.allocation as usize
        };
        Some(GroupSize {
            least: parked.decisive().clamp(1, limit),
            most: parked.lacking.len().min(limit),
        })
    }
}

/// Asks for a kick when the driver adds buffers; true if it did so in the meantime.
fn more_buffers(ring: &Ring, memory: &GuestMemoryMmap) -> Result<bool, queue::Error> {
    let before = queue::available(ring, memory)?;
    queue::await_kick(ring, memory)?;
    Ok(queue::available(ring, memory)? != before)
}

/// The message for a miss. A page request names the pages that are certain to be needed, a
/// translation request also those that are likely, both up to the next 2 MiB border.
fn request(kind: u32, context: u32, miss: &Miss, tag: u32, flags: u32) -> DeviceRequest {
    let vpn = miss.va / PAGE_SIZE;
    let to_border = LEAF_PAGES - vpn % LEAF_PAGES;
    let certain = (miss.va % PAGE_SIZE)
        .saturating_add(miss.bytes)
        .div_ceil(PAGE_SIZE);
    let npages = if kind == REQUEST_TRANSLATION && miss.around {
        to_border
    } else {
        certain.clamp(1, to_border)
    };
    DeviceRequest {
        kind: kind.into(),
        context: context.into(),
        va: (vpn * PAGE_SIZE).into(),
        npages: (npages.min(MAX_RANGE_PAGES.into()) as u32).into(),
        flags: (miss.access.wire() | flags).into(),
        tag: tag.into(),
        reserved: 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn miss(va: u64, bytes: u64, around: bool) -> Miss {
        Miss {
            va,
            bytes,
            access: Access::READ,
            around,
        }
    }

    fn pages(kind: u32, miss: &Miss) -> u32 {
        request(kind, 0, miss, 0, 0).npages.get()
    }

    #[test]
    fn requests_cover_the_range_up_to_the_2_mib_border() {
        // One byte beyond a page border needs two pages.
        assert_eq!(pages(REQUEST_PAGE, &miss(0x1fff, 2, false)), 2);
        assert_eq!(pages(REQUEST_PAGE, &miss(0x1000, u64::MAX, false)), 511);
        assert_eq!(pages(REQUEST_TRANSLATION, &miss(0, 1 << 40, false)), 512);
    }

    #[test]
    fn neighbours_are_asked_for_by_translation_requests_only() {
        assert_eq!(pages(REQUEST_TRANSLATION, &miss(0x1008, 1, true)), 511);
        assert_eq!(pages(REQUEST_PAGE, &miss(0x1008, 1, true)), 1);
    }

    #[test]
    fn address_of_a_request_is_that_of_the_page() {
        let message = request(REQUEST_PAGE, 9, &miss(u64::MAX, 1, false), 4, REQUEST_LAST);
        assert_eq!(message.va.get(), u64::MAX - 0xfff);
        assert_eq!(message.npages.get(), 1);
        assert_eq!(message.flags.get(), Access::READ.wire() | REQUEST_LAST);
    }
}

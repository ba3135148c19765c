// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests on their way: a translation request, page requests if that does not do, and a translation
//! request again.
//!
//! A pure state machine: events go in, [`Effect`]s come out.
//!
//! ```text
//! begin ─▶ translating ──has the first page──▶ answered
//!             ▲   │ has not
//!     Success │   ▼                   Invalid Request, Response Failure,
//!             └─ paging / starved ─▶ or Success too often ─▶ answered
//! ```
//!
//! 1. A group counts its pages against the outstanding page request allocation (PCIe 6.0 §10.4.2);
//!    what finds none left is *starved* until a response comes.
//! 2. A group asks for the pages that are certain to be needed, from the first that is missing on. Its response
//!    is for all of them; when that is Invalid Request, the first is asked for alone, and decides.
//! 3. The tag of a translation request is the index of its slot and a sequence number; the index of a
//!    group is that of its slot. A slot is free when QEMU has nothing of it any more.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use coax_abi::wire::PAGE_SIZE;

use super::wire::{Message, MAX_GROUP, PAGE_REQUEST, TRANSLATE};
use crate::access::Access;
use crate::mmu::atc::{Translation, LEAF_PAGES};
use crate::mmu::ContextId;
use crate::resolve::{Request, ResponseCode};

/// Slots: group indices.
pub const SLOTS: usize = 512;
/// Pages that one translation request asks for, around what is needed.
const AROUND: u64 = 64;
/// Times that a page request may succeed without a translation being there afterwards.
const MAX_ROUNDS: u32 = 8;
/// The interrupt range: writes to it are messages, so no IOMMU translates it (VT-d 4.1 §3.15).
const INTERRUPTS: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;
/// Bits of an address; those above are the same as the highest of these.
const ADDRESS_BITS: u32 = 48;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this.
    Send(Message),
    /// The request has ended.
    Answer {
        /// Its context.
        context: ContextId,
        /// Its tag.
        tag: u32,
        /// How it ended if pages were requested.
        code: Option<ResponseCode>,
        /// What is there.
        entries: Vec<Translation>,
    },
}

/// Which use of which PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pasid {
    /// Process address space identifier.
    pub number: u32,
    /// Use of it, never 0.
    pub opening: u32,
}

/// All requests on their way.
#[derive(Debug)]
pub struct Requests {
    slots: Vec<Slot>,
    /// Pages that may still be requested.
    credits: u64,
    allocation: u64,
    starved: VecDeque<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    sequence: u32,
    work: Option<Work>,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    request: Request,
    pasid: Pasid,
    state: State,
    rounds: u32,
    /// No more than a page is requested at a time.
    singly: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Translating,
    Paging { pages: u64 },
    Starved,
}

impl Work {
    fn va(&self) -> u64 {
        self.request.miss.va / PAGE_SIZE * PAGE_SIZE
    }

    /// Pages that are certain to be needed, up to the next 2 MiB border and the interrupt range.
    fn certain(&self) -> u64 {
        let miss = &self.request.miss;
        let to_border = LEAF_PAGES - self.va() / PAGE_SIZE % LEAF_PAGES;
        let pages = (miss.va % PAGE_SIZE)
            .saturating_add(miss.bytes)
            .div_ceil(PAGE_SIZE);
        let below = INTERRUPTS.start().saturating_sub(self.va()) / PAGE_SIZE;
        let limit = if below == 0 {
            to_border
        } else {
            to_border.min(below)
        };
        pages.clamp(1, limit)
    }

    /// Pages that are asked for. Those around are only read: a translation for writing makes the page
    /// dirty.
    fn asked(&self) -> u64 {
        let to_border = LEAF_PAGES - self.va() / PAGE_SIZE % LEAF_PAGES;
        let below = INTERRUPTS.start().saturating_sub(self.va()) / PAGE_SIZE;
        let limit = if below == 0 {
            to_border
        } else {
            to_border.min(below)
        };
        match self.request.miss.around && !self.writes() {
            true => AROUND.min(limit).max(self.certain()),
            false => self.certain(),
        }
    }

    fn writes(&self) -> bool {
        self.request.miss.access.contains(Access::WRITE)
    }

    fn message(&self, kind: u32, tag: u32, pages: u64) -> Message {
        let access = if self.writes() {
            Access::READ.wire() | Access::WRITE.wire()
        } else {
            Access::READ.wire()
        };
        Message {
            kind: kind.into(),
            tag: tag.into(),
            pasid: self.pasid.number.into(),
            opening: self.pasid.opening.into(),
            addr: self.va().into(),
            last: (self.va() + (pages * PAGE_SIZE - 1)).into(),
            access: access.into(),
            ..Message::default()
        }
    }

    fn answer(&self, code: Option<ResponseCode>, entries: Vec<Translation>) -> Effect {
        Effect::Answer {
            context: self.request.context,
            tag: self.request.tag,
            code,
            entries,
        }
    }
}

/// Whether an IOMMU is not to be asked for this address at all.
pub fn is_refused(va: u64) -> bool {
    let above = va >> (ADDRESS_BITS - 1);
    let canonical = above == 0 || above == u64::MAX >> (ADDRESS_BITS - 1);
    INTERRUPTS.contains(&va) || !canonical
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            credits: 0,
            allocation: 0,
            starved: VecDeque::new(),
        }
    }
}

impl Requests {
    /// Sets the outstanding page request allocation.
    pub fn set_allocation(&mut self, pages: u64) {
        let outstanding = self.allocation - self.credits;
        self.allocation = pages.max(outstanding);
        self.credits = self.allocation - outstanding;
    }

    /// Begins a request, whose address is not refused; none if all slots are in use.
    pub fn begin(&mut self, request: &Request, pasid: Pasid) -> Option<Message> {
        let index = self.slots.iter().position(|slot| slot.work.is_none())?;
        self.slots[index].work = Some(Work {
            request: *request,
            pasid,
            state: State::Translating,
            rounds: 0,
            singly: false,
        });
        self.translate(index)
    }

    fn translate(&mut self, index: usize) -> Option<Message> {
        let slot = &mut self.slots[index];
        slot.sequence = slot.sequence.wrapping_add(1);
        let tag = (slot.sequence << 9) | index as u32;
        let work = slot.work.as_mut()?;
        work.state = State::Translating;
        Some(work.message(TRANSLATE, tag, work.asked()))
    }

    fn ask(&mut self, index: usize) -> Option<Message> {
        let work = self.slots[index].work.as_mut()?;
        let group = if work.singly { 1 } else { MAX_GROUP };
        let pages = work.certain().min(group).min(self.credits);
        if pages == 0 {
            work.state = State::Starved;
            self.starved.push_back(index);
            return None;
        }
        self.credits -= pages;
        work.state = State::Paging { pages };
        Some(work.message(PAGE_REQUEST, index as u32, pages))
    }

    /// A translation request was answered. False if there is no such request.
    pub fn completed(
        &mut self,
        tag: u32,
        pasid: Pasid,
        entries: Vec<Translation>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let index = tag as usize % SLOTS;
        let slot = &mut self.slots[index];
        let current = (slot.sequence << 9) >> 9 == tag >> 9;
        let Some(work) = slot
            .work
            .filter(|work| current && work.state == State::Translating && work.pasid == pasid)
        else {
            return false;
        };
        let vpn = work.va() / PAGE_SIZE;
        let found = entries.iter().any(|run| {
            (run.vpn..run.vpn + run.npages).contains(&vpn)
                && run.access.contains(work.request.miss.access)
        });
        if found {
            slot.work = None;
            let paged = work.rounds > 0 || work.singly;
            let code = paged.then_some(ResponseCode::Success);
            effects.push(work.answer(code, entries));
        } else if work.rounds == MAX_ROUNDS {
            slot.work = None;
            // Somebody takes the page away again and again. The command will ask anew, so often.
            effects.push(work.answer(Some(ResponseCode::Success), Vec::new()));
        } else {
            effects.extend(self.ask(index).map(Effect::Send));
        }
        true
    }

    /// A page request group was answered. False if there is no such group.
    pub fn responded(
        &mut self,
        index: u32,
        pasid: Pasid,
        code: ResponseCode,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let index = index as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let Some(work) = slot.work.as_mut().filter(|work| work.pasid == pasid) else {
            return false;
        };
        let State::Paging { pages } = work.state else {
            return false;
        };
        self.credits += pages;
        match code {
            ResponseCode::Success => {
                work.rounds += 1;
                effects.extend(self.translate(index).map(Effect::Send));
            }
            ResponseCode::InvalidRequest if pages > 1 => {
                work.singly = true;
                effects.extend(self.translate(index).map(Effect::Send));
            }
            _ => {
                effects.push(work.answer(Some(code), Vec::new()));
                slot.work = None;
            }
        }
        self.feed(effects);
        true
    }

    /// Lets those go on that are starved, as far as there are credits.
    fn feed(&mut self, effects: &mut Vec<Effect>) {
        while self.credits > 0 {
            let Some(index) = self.starved.pop_front() else {
                return;
            };
            effects.extend(self.ask(index).map(Effect::Send));
        }
    }

    /// QEMU has nothing any more of the uses that `gone` picks: their requests end with Response Failure.
    pub fn end(&mut self, gone: impl Fn(Pasid) -> bool, effects: &mut Vec<Effect>) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(work) = slot.work.take_if(|work| gone(work.pasid)) else {
                continue;
            };
            match work.state {
                State::Paging { pages } => self.credits += pages,
                State::Starved => self.starved.retain(|&other| other != index),
                State::Translating => {}
            }
            effects.push(work.answer(Some(ResponseCode::ResponseFailure), Vec::new()));
        }
        self.feed(effects);
    }
}

#[cfg(test)]
#[path = "requests/tests.rs"]
mod tests;

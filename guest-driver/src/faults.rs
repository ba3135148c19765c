// SPDX-License-Identifier: GPL-2.0

//! Answering the device's translation requests and page requests for one context.
//!
//! The loop is that of `Documentation/mm/hmm.rst`: read the sequence, look at the page table (and
//! fault pages in), then, under the mirror's lock, post the answer if nothing changed meanwhile,
//! else begin anew. Under `POLICY_ON_FAULT` a page request first moves the pages to device
//! memory; if they cannot move the device uses them where they are, so that every request ends.
//! A request for atomic operations takes pages of system memory from the CPUs (`exclusive`).
//!
//! Requests come by interrupt into a ring and are handled in order by the context's worker;
//! contexts do not wait for each other. The worker holds neither the mirror's lock nor any other
//! of the driver while it migrates or faults pages in, because both call the notifier.

mod answer;
mod exclusive;

use crate::{
    device::Device,
    kapi::{
        hmm::{range_fault, HmmPfn},
        irqlock::IrqSpinLock,
        migrate::PageArrays,
        misc::this_cpu,
        mm,
        notifier::IntervalNotifier,
        page::PMD_ORDER,
        trace,
        work::Work,
    },
    memory::{clear_ahead, DeviceMemory},
    migration::{self, Wish, WINDOW_PAGES},
    mirror::Mirror,
    new_irqlock,
    residency::windows,
    uapi, wire,
};
use kernel::{
    mm::{virt, MmWithUser},
    new_mutex,
    prelude::*,
    sync::{atomic::Atomic, Arc, Mutex},
    time::Delta,
};
use zerocopy::FromZeros;

/// Longest attempt to answer one request while the mappings keep changing.
const RETRY_LIMIT: Delta = Delta::from_secs(5);
/// Requests waiting for the worker: all that the device may have outstanding, of both kinds.
const RING: usize = 2 * wire::MAX_PAGE_REQUESTS as usize;

const PAGE_SIZE: u64 = wire::PAGE_SIZE;

/// What the worker uses again for each request.
struct Scratch {
    pfns: KVec<HmmPfn>,
    arrays: PageArrays,
}

impl Scratch {
    fn new() -> Result<Self> {
        let mut pfns = KVec::new();
        pfns.resize(WINDOW_PAGES, HmmPfn::SNAPSHOT, GFP_KERNEL)?;
        Ok(Scratch {
            pfns,
            arrays: PageArrays::default(),
        })
    }
}

/// Handles the requests of one context.
#[pin_data]
pub(crate) struct Faults {
    device: Arc<Device>,
    mirror: Arc<Mirror>,
    /// Watches the process's mappings.
    #[pin]
    pub(crate) notifier: IntervalNotifier<Mirror>,
    #[pin]
    ring: IrqSpinLock<KVec<wire::DeviceRequest>>,
    #[pin]
    scratch: Mutex<Scratch>,
    /// CPU that submitted last. What the program has just written is in this CPU's batch of pages
    /// not yet on the LRU lists, which a migration empties cheaply only for its own CPU.
    pub(crate) cpu: Atomic<u32>,
}

/// Access that a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Whatever there is: nothing is faulted in.
    Present,
    /// Reading.
    Read,
    /// Writing, which includes reading.
    Write,
    /// Atomic operations, which include both.
    Atomic,
}

impl Want {
    /// What the page request asks for.
    fn of(request: &wire::DeviceRequest) -> Self {
        let flags = request.flags.get();
        match (
            flags & wire::ACCESS_ATOMIC != 0,
            flags & wire::ACCESS_WRITE != 0,
        ) {
            (true, _) => Want::Atomic,
            (false, true) => Want::Write,
            (false, false) => Want::Read,
        }
    }

    /// Whether pages must be writable.
    fn writes(self) -> bool {
        matches!(self, Want::Write | Want::Atomic)
    }

    /// What a look-up has to do for a page wanted so.
    fn pfn(self) -> HmmPfn {
        match self {
            Want::Present => HmmPfn::SNAPSHOT,
            _ => HmmPfn::fault(self.writes()),
        }
    }
}

/// What becomes of pages in system memory that the policy has move before the device uses them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unmoved {
    /// The device uses them where they are.
    Use,
    /// The answer leaves them out.
    Withhold,
    /// There is no answer yet.
    Refuse,
}

/// Why a page request cannot succeed.
enum Refusal {
    /// No such page, or no such right.
    Invalid,
    /// Something else: no memory, a dying process.
    Failure,
}

impl Refusal {
    fn of(error: Error) -> Self {
        if error == EFAULT || error == EPERM || error == EINVAL {
            Refusal::Invalid
        } else {
            Refusal::Failure
        }
    }
}

impl Faults {
    /// Handles faults in `mm`, which must be in use.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new<'a>(
        device: Arc<Device>,
        mm: &'a MmWithUser,
        mirror: Arc<Mirror>,
    ) -> Result<impl PinInit<Self, Error> + 'a> {
        let ring = KVec::with_capacity(RING, GFP_KERNEL)?;
        let scratch = Scratch::new()?;
        Ok(try_pin_init!(Self {
            device,
            notifier <- IntervalNotifier::new(mm, mirror.clone()),
            mirror,
            ring <- new_irqlock!(ring, "coax_requests"),
            scratch <- new_mutex!(scratch, "coax_scratch"),
            cpu: Atomic::new(this_cpu()),
        }? Error))
    }

    /// The context's mirror.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Takes a request for the worker; false if it makes no sense or is one too many. Callable
    /// from interrupts.
    pub(crate) fn push(&self, request: &wire::DeviceRequest) -> bool {
        let npages = request.npages.get();
        let sensible = (1..=wire::MAX_RANGE_PAGES).contains(&npages)
            && request.va.get() % PAGE_SIZE == 0
            && request.kind.get() == wire::REQUEST_PAGE
            && (request.flags.get() & wire::ACCESS_ATOMIC == 0 || self.device.link.features.atomic);
        sensible && self.ring.lock().push_within_capacity(*request).is_ok()
    }

    /// Largest part of the request's pages that lies in user space, in one mapping and under one policy,
    /// which comes with it. The rest is for the device to ask for again.
    fn clip(&self, mm: &MmWithUser, request: &wire::DeviceRequest) -> Result<(u64, usize, u32)> {
        let va = request.va.get();
        if va >= mm::task_size(mm) {
            return Err(EFAULT);
        }
        let guard = mm.mmap_read_lock();
        let vma = guard.vma_lookup(va as usize).ok_or(EFAULT)?;
        let needed = if request.flags.get() & wire::ACCESS_WRITE != 0 {
            virt::flags::WRITE
        } else {
            virt::flags::READ
        };
        if vma.flags() & needed == 0 {
            return Err(EPERM);
        }
        let found = self.mirror.policies.at(va);
        let pages = (found.range.end.min(vma.end() as u64) - va) / PAGE_SIZE;
        let npages = (request.npages.get() as usize).min(pages as usize);
        let policy = match self.device.node() {
            Some(node) if !node.is_for(vma) => found.rule.policy.max(uapi::POLICY_ON_REQUEST),
            _ => found.rule.policy,
        };
        Ok((va, npages, policy))
    }

    /// Moves the pages wanted, and those around them that are present, to device memory: all of a
    /// 2 MiB page, and all of 2 MiB never touched where the program wants such pages. None that are
    /// under other advice. False if none of them ever moves, or none can.
    fn migrate(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        va: u64,
        npages: usize,
        write: bool,
        scratch: &mut Scratch,
    ) -> bool {
        if !memory.data().has_room() {
            self.device.link.stats.device_full.add(npages as u64);
            return false;
        }
        if write {
            self.break_copy_on_write(memory, mm, va, npages, scratch);
        }
        let order = self.map_order(memory, mm, va, scratch);
        let guard = mm.mmap_read_lock();
        let Some(vma) = guard
            .vma_lookup(va as usize)
            .filter(|vma| mm::may_migrate(vma))
            .filter(|vma| self.device.node().is_none_or(|node| node.is_for(vma)))
        else {
            return false;
        };
        let found = self.mirror.policies.at(va);
        if found.rule.policy != uapi::POLICY_ON_FAULT {
            return false;
        }
        let first = vma.start().max(found.range.start as usize);
        let last = vma.end().min(found.range.end as usize);
        let wanted = va as usize..(va as usize + npages * PAGE_SIZE as usize).min(last);
        let block = |pages: usize| {
            let bytes = pages * PAGE_SIZE as usize;
            let start = va as usize - va as usize % bytes;
            start..start + bytes
        };
        let large = block(WINDOW_PAGES);
        let untouched = order.is_none() && vma.flags() & virt::flags::HUGEPAGE != 0;
        let fits = first <= large.start && large.end <= last;
        let (window, fill) = if memory.has_large_folios()
            && fits
            && (untouched || order.is_some_and(|order| order >= PMD_ORDER))
        {
            (large, if untouched { wanted } else { 0..0 })
        } else {
            let around = block(found.rule.fault_around as usize);
            let start = around.start.max(first);
            let end = around.end.min(last).max(wanted.end);
            if end - start > WINDOW_PAGES * PAGE_SIZE as usize {
                (wanted.clone(), wanted)
            } else {
                (start..end, wanted)
            }
        };
        let start = window.start;
        let wish = Wish {
            fill,
            fill_large: untouched,
            fail_alloc: None,
        };
        // What does not move is used in place.
        let arrays = core::mem::take(&mut scratch.arrays);
        let Ok((moved, arrays)) = migration::to_device(memory, vma, window, &wish, arrays) else {
            return false;
        };
        scratch.arrays = arrays;
        if moved > 0 {
            self.device.link.stats.to_device_fault.add(moved);
            self.mirror.stats.to_device.add(moved);
            trace::to_device(self.mirror.id().number, start as u64, moved);
        }
        true
    }

    /// Pages, as a power of two, that the page-table entry at `va` maps; none if nothing is there.
    fn map_order(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        va: u64,
        scratch: &mut Scratch,
    ) -> Option<u32> {
        let pfns = &mut scratch.pfns[..1];
        pfns.fill(HmmPfn::SNAPSHOT);
        let seq = self.notifier.read_begin();
        let guard = mm.mmap_read_lock();
        // A change in between makes this a guess, and a guess will do.
        range_fault(&self.notifier, &guard, seq, va, pfns, memory.owner()).ok()?;
        pfns[0].page()?;
        Some(pfns[0].map_order())
    }

    /// Tells the device where pages are before it asks; of what changes meanwhile it will ask.
    ///
    /// # Errors
    ///
    /// `ESRCH`: the process is gone. `ENOMEM`. `EIO`: the device is broken.
    pub(crate) fn tell_ahead(&self, memory: &DeviceMemory, va: u64, npages: usize) -> Result {
        if !self.device.link.features.translation_ahead {
            return Ok(());
        }
        let id = self.mirror.id();
        let head = wire::TranslationMessage {
            kind: wire::MSG_TRANSLATION_AHEAD.into(),
            context: id.number.into(),
            generation: id.generation.into(),
            ..wire::TranslationMessage::new_zeroed()
        };
        let mm = self.notifier.mm().mmget_not_zero().ok_or(ESRCH)?;
        let mut scratch = Scratch::new()?;
        for (va, npages) in windows(va, npages as u64 * PAGE_SIZE) {
            let range = (va, npages);
            let (want, unmoved) = (Want::Present, Unmoved::Use);
            self.answer(memory, &mm, range, want, unmoved, head, &mut scratch)?;
        }
        Ok(())
    }

    fn page_request(
        &self,
        memory: &DeviceMemory,
        request: &wire::DeviceRequest,
        scratch: &mut Scratch,
    ) {
        let (context, tag) = (self.mirror.id().number, request.tag.get());
        let (va, npages, flags) = (request.va.get(), request.npages.get(), request.flags.get());
        trace::page_request(context, va, npages, flags);
        self.device.link.stats.page_requests.add(1);
        self.mirror.stats.page_requests.add(1);

        let kind = wire::MSG_PAGE_RESPONSE;
        let success = head(kind, request, wire::RESPONSE_SUCCESS);
        let stats = &self.device.link.stats;
        let code = match self.resolve(memory, request, success, scratch) {
            Ok(()) => {
                stats.responses_success.add(1);
                wire::RESPONSE_SUCCESS
            }
            Err(Refusal::Invalid) => {
                stats.responses_invalid.add(1);
                wire::RESPONSE_INVALID
            }
            Err(Refusal::Failure) => {
                stats.responses_failure.add(1);
                wire::RESPONSE_FAILURE
            }
        };
        trace::group_response(context, tag, code);
        if code != wire::RESPONSE_SUCCESS {
            self.answer_empty(head(kind, request, code));
        }
    }

    /// Makes the pages usable and posts a message with their translations.
    fn resolve(
        &self,
        memory: &DeviceMemory,
        request: &wire::DeviceRequest,
        head: wire::TranslationMessage,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        let mm = self
            .notifier
            .mm()
            .mmget_not_zero()
            .ok_or(Refusal::Failure)?;
        let (va, npages, policy) = self.clip(&mm, request).map_err(Refusal::of)?;
        let want = Want::of(request);
        let write = want.writes();
        let tried = policy == uapi::POLICY_ON_FAULT
            && self.migrate(memory, &mm, va, npages, write, scratch);
        let range = (va, npages);
        if want == Want::Atomic {
            let answered = self.answer_exclusive(memory, &mm, range, head, scratch);
            return answered.map_err(Refusal::of);
        }
        if tried {
            match self.answer(memory, &mm, range, want, Unmoved::Refuse, head, scratch) {
                // The private pages of another device are in system memory only now.
                Err(error) if error == EAGAIN => {
                    self.migrate(memory, &mm, va, npages, write, scratch);
                }
                answered => return answered.map_err(Refusal::of),
            }
        }
        self.answer(memory, &mm, range, want, Unmoved::Use, head, scratch)
            .map_err(Refusal::of)
    }
}

fn head(kind: u32, request: &wire::DeviceRequest, code: u32) -> wire::TranslationMessage {
    wire::TranslationMessage {
        kind: kind.into(),
        context: request.context,
        generation: request.generation,
        tag: request.tag,
        code: code.into(),
        ..wire::TranslationMessage::new_zeroed()
    }
}

impl Work for Faults {
    fn run(&self) {
        // Without memory the device is out of service, and its commands have ended.
        let Ok(memory) = self.device.memory() else {
            return;
        };
        let mut scratch = self.scratch.lock();
        while !self.mirror.is_closed() {
            let request = {
                let mut ring = self.ring.lock();
                match ring.is_empty() {
                    true => break,
                    false => ring.remove(0),
                }
            };
            match request {
                Ok(request) => self.page_request(&memory, &request, &mut scratch),
                Err(_) => break,
            }
        }
        clear_ahead(&memory);
    }
}

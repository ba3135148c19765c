// SPDX-License-Identifier: GPL-2.0

//! The device memory: which pages are in use, and copying to and from them.
//!
//! Copies go through a queue of their own, which user commands can neither fill nor delay: a copy
//! may be what a fault, and so a command, waits for.
//!
//! `page_free` may be called with spinlocks held and from reclaim; the map's lock is a leaf.

use crate::{
    kapi::{
        irqlock::IrqSpinLock,
        migrate::Fault,
        pagemap::{FaultError, Pagemap, PagemapOps},
    },
    link::{new_message, put, CallRequest, Link},
    migration, new_irqlock,
    page_map::{words_for, PageMap},
    wire,
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// Device memory with its struct pages.
pub(crate) type DeviceMemory = Pagemap<Memory>;

/// The allocator and what copying needs.
#[pin_data]
pub(crate) struct Memory {
    /// The device.
    pub(crate) link: Arc<Link>,
    #[pin]
    map: IrqSpinLock<PageMap<KVVec<u64>>>,
    accepting: Atomic<bool>,
}

impl Memory {
    /// `pages` free pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(link: Arc<Link>, pages: usize) -> Result<impl PinInit<Self>> {
        let mut words = KVVec::new();
        words.resize(words_for(pages), 0, GFP_KERNEL)?;
        Ok(pin_init!(Self {
            link,
            map <- new_irqlock!(PageMap::new(words, pages), "coax_page_map"),
            accepting: Atomic::new(true),
        }))
    }

    /// Pages not in use.
    pub(crate) fn free_pages(&self) -> u64 {
        self.map.lock().free() as u64
    }

    /// Whether pages are given out.
    pub(crate) fn is_accepting(&self) -> bool {
        self.accepting.load(Relaxed)
    }

    /// Whether pages are to be given out; taken pages stay.
    pub(crate) fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Relaxed);
    }

    /// Up to `want` consecutive free pages.
    pub(crate) fn take(&self, want: usize) -> Option<(usize, usize)> {
        if !self.is_accepting() {
            return None;
        }
        self.map.lock().take(want)
    }

    /// Gives back a page that was taken and never readied.
    pub(crate) fn give(&self, index: usize) {
        self.map.lock().give(index);
    }

    /// The next run of pages in use, at most `most`, from `from` on.
    pub(crate) fn used_run(&self, from: usize, most: usize) -> Option<(usize, usize)> {
        self.map.lock().used_run(from, most)
    }
}

impl PagemapOps for Memory {
    fn page_free(&self, index: usize) {
        if !self.map.lock().give(index) {
            pr_err!("page {} of the device memory was freed twice\n", index);
        }
    }

    fn migrate_to_ram(map: &DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
        migration::on_cpu_fault(map, fault)
    }
}

/// Copies that go to the device in one message.
pub(crate) struct CopyBatch {
    message: KBox<CallRequest>,
    entries: usize,
    last: wire::CopyEntry,
}

impl CopyBatch {
    /// A batch of up to `most` pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(most: usize) -> Result<Self> {
        let readable = size_of::<wire::CopyHeader>() + most * size_of::<wire::CopyEntry>();
        Ok(CopyBatch {
            message: new_message(readable, size_of::<wire::CopyReply>(), GFP_KERNEL)?,
            entries: 0,
            last: wire::CopyEntry {
                src_gpa: 0.into(),
                dst_gpa: 0.into(),
                npages: 0.into(),
                flags: 0.into(),
            },
        })
    }

    /// Adds one page: from `src`, or cleared where there is none. Pages that follow each other on
    /// both sides become one entry.
    ///
    /// # Errors
    ///
    /// `EINVAL`: more pages than the batch was made for.
    pub(crate) fn push(&mut self, src: Option<u64>, dst: u64) -> Result {
        let flags = if src.is_some() { 0 } else { wire::COPY_ZERO };
        let pages = self.last.npages.get();
        let bytes = u64::from(pages) * wire::PAGE_SIZE;
        let continues = self.entries > 0
            && pages < wire::MAX_RANGE_PAGES
            && self.last.flags.get() == flags
            && self.last.dst_gpa.get() + bytes == dst
            && src.is_none_or(|src| self.last.src_gpa.get() + bytes == src);
        if continues {
            self.last.npages.set(pages + 1);
        } else {
            self.last = wire::CopyEntry {
                src_gpa: src.unwrap_or(0).into(),
                dst_gpa: dst.into(),
                npages: 1.into(),
                flags: flags.into(),
            };
            self.entries += 1;
        }
        let at = size_of::<wire::CopyHeader>() + (self.entries - 1) * size_of::<wire::CopyEntry>();
        put(&mut self.message, at, &self.last)
    }

    /// Has the device do the copies; at once if there are none.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken or refused.
    pub(crate) fn run(mut self, link: &Link) -> Result {
        if self.entries == 0 {
            return Ok(());
        }
        let header = wire::CopyHeader {
            count: (self.entries as u32).into(),
            reserved: 0.into(),
        };
        put(&mut self.message, 0, &header)?;
        let used = size_of::<wire::CopyHeader>() + self.entries * size_of::<wire::CopyEntry>();
        self.message.limit_readable(used);
        link.copy(self.message)
    }
}

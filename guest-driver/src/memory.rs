// SPDX-License-Identifier: GPL-2.0

//! The device memory: which pages are in use, and copying to and from them.
//!
//! Copies go through a queue of their own, which user commands can neither fill nor delay: a copy
//! may be what a fault, and so a command, waits for.
//!
//! A few pages are cleared ahead of need, so that a device's fault on memory never touched does not
//! wait for a copy message.
//!
//! `page_free` may be called with spinlocks held and from reclaim; under the lock of the pages only that of
//! the users is taken, which is a leaf.

use crate::{
    kapi::{
        irqlock::IrqSpinLock,
        migrate::Fault,
        node::MemoryNode,
        page::PMD_PAGES,
        pagemap::{FaultError, Pagemap, PagemapOps},
    },
    link::{new_message, put, CallRequest, Link, Pending},
    migration::{self, WINDOW_PAGES},
    new_irqlock,
    page_map::{blocks_for, words_for, PageMap},
    users::NOBODY,
    wire,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// Device memory with its struct pages.
pub(crate) type DeviceMemory = Pagemap<Memory>;

/// Pages cleared ahead of need: 256 KiB, which one message clears while the device is at work on the
/// pages of the faults before.
const CLEARED: usize = 64;

/// Blocks that one search for pages of a user looks at: a bound for the time with interrupts disabled.
const SEARCHED_BLOCKS: usize = 16;

/// Which pages are in use.
struct Pages {
    map: PageMap<KVVec<u64>, KVVec<u16>>,
    /// Pages that count as used in `map`, hold zeros and are nobody's.
    cleared: KVec<usize>,
    /// Where the next search for pages that are to make room begins, so that it is not always the same ones.
    hand: usize,
}

/// Who gives device memory out.
#[derive(Clone, Copy)]
pub(crate) enum Supply {
    /// The driver, so many pages.
    Own(usize),
    /// The kernel, as memory of this node.
    Node(MemoryNode),
}

/// The allocator and what copying needs.
#[pin_data]
pub(crate) struct Memory {
    /// The device.
    pub(crate) link: Arc<Link>,
    // None where the pages are the driver's to give out.
    node: Option<MemoryNode>,
    #[pin]
    pages: IrqSpinLock<Pages>,
    accepting: Atomic<bool>,
}

impl Memory {
    /// Memory from `supply`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(link: Arc<Link>, supply: Supply) -> Result<impl PinInit<Self>> {
        let (pages, node) = match supply {
            Supply::Own(pages) => (pages, None),
            Supply::Node(node) => (0, Some(node)),
        };
        let (mut words, mut counts, mut holders) = (KVVec::new(), KVVec::new(), KVVec::new());
        words.resize(words_for(pages), 0, GFP_KERNEL)?;
        counts.resize(blocks_for(pages), 0, GFP_KERNEL)?;
        holders.resize(pages, NOBODY, GFP_KERNEL)?;
        let pages = Pages {
            map: PageMap::new(words, counts, holders, pages),
            cleared: KVec::with_capacity(CLEARED, GFP_KERNEL)?,
            hand: 0,
        };
        Ok(pin_init!(Self {
            link,
            node,
            pages <- new_irqlock!(pages, "coax_pages"),
            accepting: Atomic::new(true),
        }))
    }

    /// Pages not in use.
    pub(crate) fn free_pages(&self) -> u64 {
        if let Some(node) = self.node {
            return node.free_pages();
        }
        let pages = self.pages.lock();
        (pages.map.free() + pages.cleared.len()) as u64
    }

    /// Whether anything can move here.
    pub(crate) fn has_room(&self) -> bool {
        self.is_accepting()
            && match self.node {
                Some(node) => node.has_room(),
                None => self.free_pages() > 0,
            }
    }

    /// The node of which the kernel gives this memory out.
    pub(crate) fn node(&self) -> Option<MemoryNode> {
        self.node
    }

    /// Whether pages are given out.
    pub(crate) fn is_accepting(&self) -> bool {
        self.accepting.load(Relaxed) && self.link.lifetime.is_live()
    }

    /// Whether pages are to be given out; taken pages stay.
    pub(crate) fn set_accepting(&self, accepting: bool) {
        let mut pages = self.pages.lock();
        self.accepting.store(accepting, Relaxed);
        if !accepting {
            while let Some(index) = pages.cleared.pop() {
                self.give_back(&mut pages, index..index + 1);
            }
        }
    }

    /// Up to `want` consecutive free pages for `user`; of those cleared if there are no others.
    pub(crate) fn take(&self, want: usize, user: u16) -> Option<(usize, usize)> {
        let mut pages = self.pages.lock();
        if !self.is_accepting() {
            return None;
        }
        if let Some((first, count)) = pages.map.take(want, user) {
            self.link.users.lock().took(user, count);
            return Some((first, count));
        }
        self.hand_over_cleared(&mut pages, user)
            .map(|index| (index, 1))
    }

    /// A page that holds zeros, from now on `user`'s.
    fn hand_over_cleared(&self, pages: &mut Pages, user: u16) -> Option<usize> {
        let index = pages.cleared.pop()?;
        pages.map.hand_over(index, user);
        let mut users = self.link.users.lock();
        users.gave(NOBODY);
        users.took(user, 1);
        Some(index)
    }

    /// Gives pages back; returns how many were in use.
    fn give_back(&self, pages: &mut Pages, run: Range<usize>) -> usize {
        let mut users = self.link.users.lock();
        pages
            .map
            .give(run.start, run.len(), |user| users.gave(user))
    }

    /// The pages of a 2 MiB folio, if there are [`PMD_PAGES`] free ones in place.
    pub(crate) fn take_large(&self, user: u16) -> Option<usize> {
        let mut pages = self.pages.lock();
        if !self.is_accepting() {
            return None;
        }
        let first = pages.map.take_block(user)?;
        self.link.users.lock().took(user, PMD_PAGES);
        Some(first)
    }

    /// A page that holds zeros, if one was cleared ahead.
    pub(crate) fn take_cleared(&self, user: u16) -> Option<usize> {
        self.hand_over_cleared(&mut self.pages.lock(), user)
    }

    /// Puts by pages that hold zeros, or gives them back where they are not wanted.
    fn put_by(&self, run: Range<usize>) {
        let mut pages = self.pages.lock();
        for index in run {
            if !self.is_accepting() || pages.cleared.push_within_capacity(index).is_err() {
                self.give_back(&mut pages, index..index + 1);
            }
        }
    }

    /// Gives back pages that were taken and never readied.
    pub(crate) fn give(&self, run: Range<usize>) {
        self.give_back(&mut self.pages.lock(), run);
    }

    /// The next run of pages in use from `from` on, within one block of [`PMD_PAGES`], so that it
    /// holds whole folios.
    pub(crate) fn used_run(&self, from: usize) -> Option<Range<usize>> {
        let (first, count) = self
            .pages
            .lock()
            .map
            .used_run(from..usize::MAX, PMD_PAGES, None)?;
        Some(first..first + count)
    }

    /// Whose pages are to make room for `user`, who wants `want`, and how many at most; none if there is room,
    /// or nobody has to give way.
    pub(crate) fn gives_way(&self, user: u16, want: usize) -> Option<(u16, usize)> {
        if self.node.is_some() || !self.is_accepting() || self.free_pages() >= want as u64 {
            return None;
        }
        let total = self.pages.lock().map.pages();
        self.link.users.lock().gives_way(user, total)
    }

    /// Whether there is room for `user`, or can be made.
    pub(crate) fn has_room_for(&self, user: u16) -> bool {
        self.has_room() || self.gives_way(user, 1).is_some()
    }

    /// The next run of pages that `user` has, within one block; it may have to be searched for again.
    pub(crate) fn next_of(&self, user: u16) -> Option<Range<usize>> {
        let mut pages = self.pages.lock();
        let from = pages.hand;
        let end = from + SEARCHED_BLOCKS * PMD_PAGES;
        let found = pages.map.used_run(from..end, PMD_PAGES, Some(user));
        pages.hand = match found {
            Some((first, count)) => first + count,
            None if end < pages.map.pages() => end,
            None => 0,
        };
        found.map(|(first, count)| first..first + count)
    }
}

/// Clears pages ahead of need if few are left; to be called when nobody waits.
pub(crate) fn clear_ahead(memory: &DeviceMemory) {
    let data = memory.data();
    let cleared = data.pages.lock().cleared.len();
    if cleared >= CLEARED / 2 {
        return;
    }
    let Some((first, count)) = data.take(CLEARED - cleared, NOBODY) else {
        return;
    };
    let done = CopyBatch::new(count).and_then(|mut batch| {
        batch.push(None, memory.address_at(first), count as u32)?;
        batch.run(&data.link)
    });
    match done {
        Ok(()) => data.put_by(first..first + count),
        Err(_) => data.give(first..first + count),
    }
}

impl PagemapOps for Memory {
    fn folio_free(&self, index: usize, count: usize) {
        let given = self.give_back(&mut self.pages.lock(), index..index + count);
        if given != count {
            pr_err!("page {} of the device memory was freed twice\n", index);
        }
    }

    fn migrate_to_ram(map: &DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
        migration::on_cpu_fault(map, fault)
    }
}

/// How far a batch was filled.
pub(crate) struct Mark {
    entries: usize,
    last: wire::CopyEntry,
}

/// Copies that go to the device in one message.
pub(crate) struct CopyBatch {
    message: KBox<CallRequest>,
    room: usize,
    entries: usize,
    last: wire::CopyEntry,
}

impl CopyBatch {
    /// A batch with room for `most` ranges, and for more by and by.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(most: usize) -> Result<Self> {
        let readable = size_of::<wire::CopyHeader>() + most * size_of::<wire::CopyEntry>();
        Ok(CopyBatch {
            message: new_message(readable, size_of::<wire::CopyReply>(), GFP_KERNEL)?,
            room: most,
            entries: 0,
            last: wire::CopyEntry {
                src_gpa: 0.into(),
                dst_gpa: 0.into(),
                npages: 0.into(),
                flags: 0.into(),
            },
        })
    }

    /// Adds `npages` pages: from `src`, or cleared where there is none. Pages that follow each other
    /// on both sides become one entry.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory for more ranges.
    pub(crate) fn push(&mut self, src: Option<u64>, dst: u64, npages: u32) -> Result {
        let flags = if src.is_some() { 0 } else { wire::COPY_ZERO };
        let pages = self.last.npages.get();
        let bytes = u64::from(pages) * wire::PAGE_SIZE;
        let continues = self.entries > 0
            && pages + npages <= wire::MAX_RANGE_PAGES
            && self.last.flags.get() == flags
            && self.last.dst_gpa.get() + bytes == dst
            && src.is_none_or(|src| self.last.src_gpa.get() + bytes == src);
        if continues {
            self.last.npages.set(pages + npages);
            return Ok(());
        }
        self.flush()?;
        if self.entries == self.room {
            self.grow()?;
        }
        self.last = wire::CopyEntry {
            src_gpa: src.unwrap_or(0).into(),
            dst_gpa: dst.into(),
            npages: npages.into(),
            flags: flags.into(),
        };
        self.entries += 1;
        Ok(())
    }

    /// What is in the batch so far.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            entries: self.entries,
            last: self.last,
        }
    }

    /// Takes out what was added after `mark`: the device must not write to pages that somebody else may get.
    pub(crate) fn back_to(&mut self, mark: Mark) {
        // The entries before `last` are in the message as they were; `last` is put there when it is complete,
        // over what more it may have been joined with.
        self.entries = mark.entries;
        self.last = mark.last;
    }

    /// Makes room for a whole window at once: small pages come by hundreds.
    fn grow(&mut self) -> Result {
        let mut larger = Self::new(self.room + WINDOW_PAGES)?;
        larger.message.copy_readable(&self.message);
        (self.message, self.room) = (larger.message, larger.room);
        Ok(())
    }

    /// Writes the last entry.
    fn flush(&mut self) -> Result {
        let Some(last) = self.entries.checked_sub(1) else {
            return Ok(());
        };
        let at = size_of::<wire::CopyHeader>() + last * size_of::<wire::CopyEntry>();
        put(&mut self.message, at, &self.last)
    }

    /// Has the device begin with the copies; `None` if there are none.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `ENOMEM`.
    pub(crate) fn begin(mut self, link: &Link) -> Result<Option<Pending>> {
        if self.entries == 0 {
            return Ok(None);
        }
        self.flush()?;
        let header = wire::CopyHeader {
            count: (self.entries as u32).into(),
            reserved: 0.into(),
        };
        put(&mut self.message, 0, &header)?;
        let used = size_of::<wire::CopyHeader>() + self.entries * size_of::<wire::CopyEntry>();
        self.message.limit_readable(used);
        link.begin_copy(self.message).map(Some)
    }

    /// Has the device do the copies; at once if there are none.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken or refused. `ENOMEM`.
    pub(crate) fn run(self, link: &Link) -> Result {
        match self.begin(link)? {
            Some(pending) => link.finish_copy(pending),
            None => Ok(()),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Copies by the device.
//!
//! They go through a queue of their own, which user commands can neither fill nor delay: a copy may be what a
//! fault, and so a command, waits for.

use crate::{
    kapi::page::PMD_PAGES,
    link::{new_message, put, CallRequest, Link, Pending},
    wire,
};
use kernel::prelude::*;

/// Ranges that a batch gets more room for at a time: small pages come by hundreds.
const GROWTH: usize = PMD_PAGES;

/// How far a batch was filled.
pub(crate) struct Mark {
    entries: usize,
    last: wire::CopyEntry,
}

/// Copies that go to the device in one message.
pub(crate) struct CopyBatch {
    /// None as long as nothing is to be copied.
    message: Option<KBox<CallRequest>>,
    /// Ranges that a message has room for, this one or the first.
    room: usize,
    entries: usize,
    last: wire::CopyEntry,
}

impl CopyBatch {
    /// A batch with room for `most` ranges, and for more by and by.
    pub(crate) fn new(most: usize) -> Self {
        CopyBatch {
            message: None,
            room: most.max(1),
            entries: 0,
            last: wire::CopyEntry {
                src_gpa: 0.into(),
                dst_gpa: 0.into(),
                npages: 0.into(),
                flags: 0.into(),
            },
        }
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

    fn grow(&mut self) -> Result {
        let mut larger = message_for(self.room + GROWTH)?;
        if let Some(message) = &self.message {
            larger.copy_readable(message);
        }
        (self.message, self.room) = (Some(larger), self.room + GROWTH);
        Ok(())
    }

    /// Writes the last entry.
    fn flush(&mut self) -> Result {
        let Some(last) = self.entries.checked_sub(1) else {
            return Ok(());
        };
        let message = match &mut self.message {
            Some(message) => message,
            none => none.insert(message_for(self.room)?),
        };
        let at = size_of::<wire::CopyHeader>() + last * size_of::<wire::CopyEntry>();
        put(message, at, &self.last)
    }

    /// Has the device begin with the copies; `None` if there are none.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `ENOMEM`.
    pub(crate) fn begin(mut self, link: &Link) -> Result<Option<Pending>> {
        self.flush()?;
        let Some(mut message) = self.message.filter(|_| self.entries > 0) else {
            return Ok(None);
        };
        let header = wire::CopyHeader {
            count: (self.entries as u32).into(),
            reserved: 0.into(),
        };
        put(&mut message, 0, &header)?;
        let used = size_of::<wire::CopyHeader>() + self.entries * size_of::<wire::CopyEntry>();
        message.limit_readable(used);
        link.begin_copy(message).map(Some)
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

fn message_for(ranges: usize) -> Result<KBox<CallRequest>> {
    let readable = size_of::<wire::CopyHeader>() + ranges * size_of::<wire::CopyEntry>();
    new_message(readable, size_of::<wire::CopyReply>(), GFP_KERNEL)
}

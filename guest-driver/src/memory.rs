// SPDX-License-Identifier: GPL-2.0

//! The device memory, whichever way the kernel knows it.
//!
//! To the rest of the driver a memory mode is an object with this trait. What a mode is, and in what it
//! differs from the others, stands in its file and nowhere else:
//!
//! ```text
//! device                 takes the device into service, and out of it
//!   └▶ modes             MODE_*: an object for each
//!        ├▶ private ─┬▶ zone ─┬▶ pool     struct pages of the driver's own, which it gives out
//!        ├▶ coherent ┘        └▶ evict    ... and takes back, wherever they are mapped
//!        └▶ numa                          memory of a node, which the kernel gives out
//!
//! faults, ioctl, hmm     move pages and ask where they are
//!   └▶ migration         one mover for all of them, and for `evict`
//!        └▶ memory       this trait
//!             └▶ kapi::frames             which page frames, with which memory behind them
//! ```
//!
//! A folio of device memory comes from `page`, `cleared_page` or `large_folio`, and goes back by its last
//! reference.

use crate::{
    kapi::{
        frames::Frames,
        page::{LockedFolio, PagePtr},
    },
    link::Link,
    uapi,
};
use core::ops::Range;
use kernel::{device::Device, mm::virt::VmaRef, prelude::*};

/// What users are told of a mode.
#[derive(Clone, Copy)]
pub(crate) struct About {
    /// `MODE_*`.
    pub(crate) mode: u32,
    /// Its name in the log.
    pub(crate) name: &'static str,
    /// The most eager `POLICY_*` that a context begins with.
    pub(crate) first_policy: u32,
}

/// Device memory, and who gives it out.
pub(crate) trait DeviceMemory: Send + Sync {
    /// What users are told of the mode.
    fn about(&self) -> About;

    /// The number of the memory node that it is, or `NO_NODE`.
    fn node(&self) -> u32 {
        uapi::NO_NODE
    }

    /// The device.
    fn link(&self) -> &Link;

    /// Which page frames are this memory's.
    fn frames(&self) -> &Frames;

    /// Whether folios of 2 MiB may be made of the pages.
    fn has_large_folios(&self) -> bool;

    /// Pages not in use.
    fn free_pages(&self) -> u64;

    /// Whether anything can move here.
    fn has_room(&self) -> bool;

    /// Whether there is room for `user`, or can be made.
    fn has_room_for(&self, _user: u16) -> bool {
        self.has_room()
    }

    /// Has others give way, if there are not `want` pages free and `user` has less than the fair share; to be
    /// called before any page of the move at hand is isolated. The mmap lock may be held for reading.
    fn make_room(&self, _user: u16, _want: usize) {}

    /// Reserves `pages` for a move of `user`, who takes no more of them than are returned, and at last says to
    /// [`Self::release`] how many were not taken. May sleep.
    fn reserve(&self, _user: u16, pages: usize) -> usize {
        pages
    }

    /// Ends the reservation of pages that were not taken.
    fn release(&self, _user: u16, _pages: usize) {}

    /// Brings at least `pages` pages home of those users of whom `is_meant` says so, as far as there are some that
    /// nothing holds; returns how many. The mmap lock may be held for reading.
    fn shrink(&self, _is_meant: &dyn Fn(u16) -> bool, _pages: usize) -> usize {
        0
    }

    /// Readies pages for later; to be called when nobody waits.
    fn clear_ahead(&self) {}

    /// A page for `user`, who wants `want` of them: of those taken ahead in `ahead`, which is empty at first
    /// and given to [`Self::give_back`] at last. None if there is no room.
    fn page(&self, ahead: &mut Range<usize>, want: usize, user: u16) -> Option<LockedFolio>;

    /// Gives back what of pages taken ahead was not used.
    fn give_back(&self, _ahead: Range<usize>) {}

    /// A page for `user` that holds zeros, if one was readied.
    fn cleared_page(&self, _user: u16) -> Option<LockedFolio> {
        None
    }

    /// A folio of 2^`order` pages for `user`.
    fn large_folio(&self, order: u32, user: u16) -> Option<LockedFolio>;

    /// Whether `page`, which the kernel takes for system memory, is to move here with those around it.
    fn takes(&self, _page: PagePtr) -> bool {
        true
    }

    /// Whether pages of `vma` may be here.
    fn may_serve(&self, _vma: &VmaRef) -> bool {
        true
    }

    /// Whether the calling task may have pages here.
    fn may_serve_caller(&self) -> bool {
        true
    }

    /// Whether calls of the driver move pages; if not the kernel's own do.
    fn moves_by_calls(&self) -> bool {
        true
    }

    /// Whether pages are given out; those given out stay.
    fn set_accepting(&self, accepting: bool);

    /// The device, which is `dev`, knows the memory, and so every page that may be in it.
    ///
    /// # Errors
    ///
    /// What the kernel says to memory that it is to have; it is in the log.
    fn enter_service(&self, _dev: &Device) -> Result {
        Ok(())
    }

    /// Brings all pages back and returns how many are still held by something when its time is up. No page may
    /// be given out meanwhile.
    ///
    /// # Errors
    ///
    /// `EBUSY`: something holds pages. `ENOMEM`: no memory.
    fn empty(&self) -> Result<u64>;

    /// Brings all pages back, however long something holds them, after nobody uses the memory any more.
    fn leave_service(&self);
}

// SPDX-License-Identifier: GPL-2.0

//! What private and coherent memory have in common: struct pages of the driver's own, which it gives out.
//!
//! `folio_free` may be called with spinlocks held and from reclaim: it takes the lock of the pool, and under it
//! that of the users.

use super::{evict, pool::Pool};
use crate::{
    charges,
    kapi::{
        frames::Frames,
        migrate::Fault,
        page::LockedFolio,
        pagemap::{FaultError, Pagemap, PagemapOps},
        virtio::ShmRegion,
    },
    link::Link,
    memory::{About, DeviceMemory},
    wire,
};
use core::{marker::PhantomData, ops::Range};
use kernel::{device::Device, prelude::*, sync::Arc};

/// In what private and coherent memory differ, but for where their struct pages are.
pub(super) trait Place: Send + Sync + 'static {
    /// What users are told.
    const ABOUT: About;
    /// Whether folios of 2 MiB may be made of the pages.
    const LARGE_FOLIOS: bool;

    /// A CPU touched a page that it cannot use.
    fn on_cpu_fault(memory: &dyn DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError>;
}

/// The pages of a `P`.
#[pin_data]
pub(super) struct Zone<P> {
    #[pin]
    pool: Pool,
    _place: PhantomData<P>,
}

impl<P: Place> Zone<P> {
    /// All pages of `region` are free.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(super) fn new(link: Arc<Link>, region: &ShmRegion) -> Result<impl PinInit<Self>> {
        let pool = Pool::new(link, (region.len() / wire::PAGE_SIZE) as usize)?;
        Ok(pin_init!(Self {
            pool <- pool,
            _place: PhantomData,
        }))
    }
}

/// The memory `region` of `dev` when it has its struct pages, by `map`.
///
/// # Errors
///
/// Those of `map`, which go to the log, and `ENOMEM`.
pub(super) fn with_struct_pages<P: Place>(
    dev: &Device,
    region: &ShmRegion,
    map: Result<impl PinInit<Pagemap<Zone<P>>, Error>>,
) -> Result<Arc<dyn DeviceMemory>> {
    let memory = map.and_then(|map| Arc::pin_init(map, GFP_KERNEL));
    let memory = memory.inspect_err(|error| {
        dev_err!(
            dev,
            "coax: no struct pages for {} MiB at {:#x}: {:?}\n",
            region.len() >> 20,
            region.start(),
            error
        );
    })?;
    Ok(memory)
}

impl<P: Place> PagemapOps for Zone<P> {
    fn folio_free(&self, index: usize, count: usize) {
        let given = self.pool.give(index..index + count);
        if given != count {
            pr_err!("page {} of the device memory was freed twice\n", index);
        }
    }

    fn migrate_to_ram(map: &Pagemap<Self>, fault: &Fault<'_>) -> Result<(), FaultError> {
        P::on_cpu_fault(map, fault)
    }
}

impl<P: Place> Pagemap<Zone<P>> {
    fn pool(&self) -> &Pool {
        &self.data().pool
    }
}

impl<P: Place> DeviceMemory for Pagemap<Zone<P>> {
    fn about(&self) -> About {
        P::ABOUT
    }

    fn link(&self) -> &Link {
        self.pool().link()
    }

    fn frames(&self) -> &Frames {
        self.frames()
    }

    fn has_large_folios(&self) -> bool {
        P::LARGE_FOLIOS
    }

    fn free_pages(&self) -> u64 {
        self.pool().free_pages()
    }

    fn has_room(&self) -> bool {
        self.pool().has_room()
    }

    fn has_room_for(&self, user: u16) -> bool {
        !self.link().users.lock().is_limited(user)
            && (self.has_room() || self.pool().gives_way(user, 1).is_some())
    }

    fn make_room(&self, user: u16, want: usize) {
        evict::make_room(self, self.pool(), user, want);
    }

    fn reserve(&self, user: u16, pages: usize) -> usize {
        charges::reserve(self.link(), user, pages)
    }

    fn release(&self, user: u16, pages: usize) {
        charges::release(self.link(), user, pages);
    }

    fn shrink(&self, is_meant: &dyn Fn(u16) -> bool, pages: usize) -> usize {
        evict::shrink(self, self.pool(), is_meant, pages)
    }

    fn clear_ahead(&self) {
        self.pool().clear_ahead(self.frames());
    }

    fn page(&self, ahead: &mut Range<usize>, want: usize, user: u16) -> Option<LockedFolio> {
        if Range::is_empty(ahead) {
            let (first, count) = self.pool().take(want, user)?;
            *ahead = first..first + count;
        }
        let folio = self.init_folio(ahead.start, 0)?;
        ahead.start += 1;
        Some(folio)
    }

    fn give_back(&self, ahead: Range<usize>) {
        self.pool().give(ahead);
    }

    fn cleared_page(&self, user: u16) -> Option<LockedFolio> {
        self.init_folio(self.pool().take_cleared(user)?, 0)
    }

    fn large_folio(&self, order: u32, user: u16) -> Option<LockedFolio> {
        self.init_folio(self.pool().take_large(user)?, order)
    }

    fn set_accepting(&self, accepting: bool) {
        self.pool().set_accepting(accepting);
    }

    fn empty(&self) -> Result<u64> {
        evict::evict_all(self, self.pool())
    }

    fn leave_service(&self) {
        evict::evict_for_good(self, self.pool());
    }
}

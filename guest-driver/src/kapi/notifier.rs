// SPDX-License-Identifier: GPL-2.0

//! Interval notifiers: being told before a process's mappings change.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::sys;
use core::{marker::PhantomData, ops::Range};
use kernel::{
    bindings, container_of,
    error::to_result,
    ffi::c_ulong,
    mm::{Mm, MmWithUser},
    prelude::*,
    sync::{aref::ARef, Arc},
    types::Opaque,
};

/// Who is told.
pub(crate) trait Invalidate: Send + Sync {
    /// The mappings in `range` are about to change. May sleep only if `range.may_block()`, must
    /// not allocate memory in a way that reclaims, and returns false, only where it may not
    /// block, if it could not do its work.
    ///
    /// Under the lock that is held around [`IntervalNotifier::retry`] it must call
    /// [`Invalidation::begin`], or record what it leaves out, until the change is over, for
    /// [`IntervalNotifier::outdate`].
    fn invalidate(&self, range: &Invalidation<'_>) -> bool;
}

/// One change of mappings.
pub(crate) struct Invalidation<'a> {
    sub: *mut bindings::mmu_interval_notifier,
    range: *const bindings::mmu_notifier_range,
    seq: c_ulong,
    _call: PhantomData<&'a ()>,
}

impl Invalidation<'_> {
    /// First address.
    pub(crate) fn start(&self) -> u64 {
        // SAFETY: `range` is valid during the callback.
        unsafe { sys::coax_notifier_start(self.range) as u64 }
    }

    /// First address after the range.
    pub(crate) fn end(&self) -> u64 {
        // SAFETY: `range` is valid during the callback.
        unsafe { sys::coax_notifier_end(self.range) as u64 }
    }

    /// Whether the callback may sleep.
    pub(crate) fn may_block(&self) -> bool {
        // SAFETY: `range` is valid during the callback.
        unsafe { sys::coax_notifier_blockable(self.range) }
    }

    /// Whether a page is being made exclusive to a device on behalf of `owner`, who was given to
    /// [`crate::kapi::exclusive::Exclusive::make`].
    pub(crate) fn is_exclusive_for<T>(&self, owner: *const T) -> bool {
        // SAFETY: `range` is valid during the callback; the owner is only compared.
        unsafe { sys::coax_notifier_is_exclusive(self.range, owner.cast_mut().cast()) }
    }

    /// Whether the addresses are being unmapped, or moved elsewhere: the mmap lock is held from before the
    /// mappings go until after the callback, so that nothing is mapped there before.
    pub(crate) fn is_unmap(&self) -> bool {
        // SAFETY: `range` is valid during the callback.
        unsafe { sys::coax_notifier_is_unmap(self.range) }
    }

    /// Number of the change. Those with the same number are over together.
    pub(crate) fn number(&self) -> u64 {
        self.seq as u64
    }

    /// Makes readers that began before this retry.
    pub(crate) fn begin(&self) {
        // SAFETY: `sub` is the notifier of this callback, `seq` the value it was called with.
        unsafe { sys::coax_notifier_set_seq(self.sub, self.seq) }
    }
}

/// All that a process can map.
pub(crate) const EVERYWHERE: Range<u64> = 0..u64::MAX & !0xfff;

/// A notifier for a part of a process's address space.
#[pin_data(PinnedDrop)]
pub(crate) struct IntervalNotifier<T: Invalidate> {
    #[pin]
    sub: Opaque<bindings::mmu_interval_notifier>,
    target: Arc<T>,
    mm: ARef<Mm>,
}

// SAFETY: The notifier may be used and removed from any thread; `T` is `Send`.
unsafe impl<T: Invalidate> Send for IntervalNotifier<T> {}
// SAFETY: `read_begin` and `retry` may be called concurrently; `T` is `Sync`.
unsafe impl<T: Invalidate> Sync for IntervalNotifier<T> {}

impl<T: Invalidate> IntervalNotifier<T> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::callback),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// Watches `range` of `mm`, which must be in use.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new<'a>(
        mm: &'a MmWithUser,
        range: Range<u64>,
        target: Arc<T>,
    ) -> impl PinInit<Self, Error> + 'a
    where
        T: 'a,
    {
        let (start, len) = (range.start as c_ulong, (range.end - range.start) as c_ulong);
        let raw_mm = mm.as_raw();
        let mm: &Mm = mm;
        try_pin_init!(Self {
            target,
            mm: ARef::from(mm),
            sub <- Opaque::try_ffi_init(|slot| {
                // SAFETY:
                // - `slot` stays where it is until `drop` removes it.
                // - `mm` has users, by its type.
                // - The operations are constant.
                // Callbacks may come before this object is complete, but the fields they use
                // are set before this one.
                to_result(unsafe {
                    bindings::mmu_interval_notifier_insert(slot, raw_mm, start, len, &Self::OPS)
                })
            }),
        })
    }

    /// The address space.
    pub(crate) fn mm(&self) -> &Mm {
        &self.mm
    }

    /// Begins a look at the mappings: waits for changes in progress. May sleep.
    pub(crate) fn read_begin(&self) -> u64 {
        // SAFETY: `sub` is registered.
        unsafe { bindings::mmu_interval_read_begin(self.sub.get()) as u64 }
    }

    /// Whether mappings changed since `seq` was read, so that what was seen must not be used.
    /// To be called, and the use made, under the lock that [`Invalidate::invalidate`] takes.
    pub(crate) fn retry(&self, seq: u64) -> bool {
        // SAFETY: `sub` is registered.
        unsafe { sys::coax_notifier_retry(self.sub.get(), seq as c_ulong) }
    }

    /// Makes looks that began before retry, and those that begin wait until the change of that number,
    /// for which [`Invalidation::begin`] was not called, is over. Under the lock that
    /// [`Invalidate::invalidate`] takes, and before a change of another number calls it.
    pub(crate) fn outdate(&self, number: u64) {
        // SAFETY: `sub` is registered. The kernel compares the number with that of the changes under way
        // (`mmu_interval_read_begin()`): it is theirs, or one that is over.
        unsafe { sys::coax_notifier_set_seq(self.sub.get(), number as c_ulong) }
    }

    pub(super) fn raw(&self) -> *mut bindings::mmu_interval_notifier {
        self.sub.get()
    }

    unsafe extern "C" fn callback(
        sub: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: c_ulong,
    ) -> bool {
        let opaque: *mut Opaque<bindings::mmu_interval_notifier> = sub.cast();
        // SAFETY: Only `new` registers this function, for the `sub` of a `Self`.
        let this = unsafe { container_of!(opaque, Self, sub) };
        // SAFETY: `drop` waits for callbacks, so that `target` is alive.
        let target = unsafe { &(*this).target };
        target.invalidate(&Invalidation {
            sub,
            range,
            seq,
            _call: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: Invalidate> PinnedDrop for IntervalNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by `new`; waits for callbacks in progress.
        unsafe { bindings::mmu_interval_notifier_remove(self.sub.get()) }
    }
}

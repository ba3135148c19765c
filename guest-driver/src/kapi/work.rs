// SPDX-License-Identifier: GPL-2.0

//! Own workqueues, and work that is cancelled when it is dropped.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::sys;
use core::ptr::NonNull;
use kernel::{
    alloc::Flags, bindings, container_of, prelude::*, str::CStr, sync::LockClassKey, types::Opaque,
};

/// A workqueue; destroyed, after its work is done, when dropped.
pub(crate) struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed from any thread.
unsafe impl Send for Workqueue {}
// SAFETY: Queueing is serialised by the workqueue itself.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// One of high priority, whose work runs on the CPU it is queued for.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn per_cpu() -> Result<Self> {
        // SAFETY: No preconditions.
        NonNull::new(unsafe { sys::coax_alloc_workqueue() })
            .map(Self)
            .ok_or(ENOMEM)
    }

    /// One for work that may sleep for long, without holding up other work.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn unbound() -> Result<Self> {
        // SAFETY: No preconditions.
        NonNull::new(unsafe { sys::coax_alloc_unbound_workqueue() })
            .map(Self)
            .ok_or(ENOMEM)
    }

    /// Waits until all that is queued now is done.
    pub(crate) fn flush(&self) {
        // SAFETY: The queue is ours; the caller may sleep (process context).
        unsafe { sys::coax_flush_workqueue(self.0.as_ptr()) }
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: The pointer is from `alloc_workqueue` and given up here.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}

/// What a [`Worker`] does each time it runs.
pub(crate) trait Work: Send + Sync {
    /// Runs in process context; never twice at a time for the same worker.
    fn run(&self);
}

/// A work item with its data. Dropping it waits for a run in progress, so it must not be dropped
/// by its own [`Work::run`].
#[pin_data(PinnedDrop)]
pub(crate) struct Worker<T: Work> {
    #[pin]
    work: Opaque<bindings::work_struct>,
    #[pin]
    data: T,
}

// SAFETY: The work item is serialised by the workqueue, `T` is `Send` by `Work`.
unsafe impl<T: Work> Send for Worker<T> {}
// SAFETY: As above; `T` is `Sync` by `Work`.
unsafe impl<T: Work> Sync for Worker<T> {}

impl<T: Work> Worker<T> {
    /// A worker that is not queued. Workers that wait for each other need lock classes of their own.
    pub(crate) fn new(
        data: impl PinInit<T, Error>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            work <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes and pinned; `name` and `key` live for ever.
                unsafe {
                    bindings::init_work_with_key(
                        slot,
                        Some(Self::trampoline),
                        false,
                        name.as_ptr().cast(),
                        key.as_ptr(),
                    )
                }
            }),
            data <- data,
        }? Error)
    }

    /// Has it run once more after now, on `cpu` if that is online; callable from interrupts.
    pub(crate) fn queue(&self, on: &Workqueue, cpu: u32) {
        // SAFETY: The item is initialised and lives until its cancellation in `drop`; `cpu` is a
        // number that `this_cpu` returned.
        unsafe { sys::coax_queue_work_on(cpu, on.0.as_ptr(), self.work.get()) };
    }

    /// Has it run once more after now, wherever a CPU is free; callable from interrupts.
    pub(crate) fn queue_anywhere(&self) {
        // SAFETY: The item is initialised and lives until its cancellation in `drop`.
        unsafe { sys::coax_queue_work_anywhere(self.work.get()) };
    }

    /// Waits until it has run.
    pub(crate) fn flush(&self) {
        // SAFETY: The item is initialised; the caller may sleep (process context).
        unsafe { bindings::flush_work(self.work.get()) };
    }

    /// The data.
    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    /// Whether it runs or is queued to.
    pub(crate) fn is_busy(&self) -> bool {
        // SAFETY: The item is initialised.
        unsafe { bindings::work_busy(self.work.get()) != 0 }
    }

    /// Waits for a run in progress and takes the item off its queue.
    pub(crate) fn cancel(&self) {
        // SAFETY: The item is initialised; the caller may sleep (process context).
        unsafe { bindings::cancel_work_sync(self.work.get()) };
    }

    unsafe extern "C" fn trampoline(work: *mut bindings::work_struct) {
        let work: *mut Opaque<bindings::work_struct> = work.cast();
        // SAFETY: Only `new` sets this function, for the `work` of a `Self`.
        let this = unsafe { container_of!(work, Self, work) };
        // SAFETY: `drop` waits for this call, so that the object is alive during it.
        unsafe { &*this }.data.run();
    }
}

#[pinned_drop]
impl<T: Work> PinnedDrop for Worker<T> {
    fn drop(self: Pin<&mut Self>) {
        self.cancel();
    }
}

/// What is done once, in process context.
pub(crate) trait Job: Send + 'static {
    /// Does it.
    fn run(self);
}

/// Room for a [`Job`] on a workqueue, taken before it is known whether and with what it will be needed, so
/// that the doing cannot fail for memory.
#[pin_data]
pub(crate) struct Errand<J: Job> {
    #[pin]
    work: Opaque<bindings::work_struct>,
    job: Option<J>,
}

// SAFETY: The work item is serialised by the workqueue, `J` is `Send` by `Job`.
unsafe impl<J: Job> Send for Errand<J> {}

impl<J: Job> Errand<J> {
    /// Room for one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(flags: Flags) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                work <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is valid for writes and pinned; name and key live for ever.
                    unsafe {
                        bindings::init_work_with_key(
                            slot,
                            Some(Self::trampoline),
                            false,
                            kernel::c_str!("coax_errand").as_ptr().cast(),
                            kernel::static_lock_class!().as_ptr(),
                        )
                    }
                }),
                job: None,
            }),
            flags,
        )
    }

    /// Has `job` done.
    pub(crate) fn send(mut self: Pin<KBox<Self>>, job: J, on: &Workqueue) {
        *self.as_mut().project().job = Some(job);
        // SAFETY: The object stays where it is until `trampoline` frees it.
        let this = KBox::into_raw(unsafe { Pin::into_inner_unchecked(self) });
        // SAFETY: The item is initialised and lives until it has run; it is queued once.
        unsafe { sys::coax_queue_work(on.0.as_ptr(), (*this).work.get()) };
    }

    unsafe extern "C" fn trampoline(work: *mut bindings::work_struct) {
        let work: *mut Opaque<bindings::work_struct> = work.cast();
        // SAFETY: Only `new` sets this function, for the `work` of a `Self`.
        let this = unsafe { container_of!(work, Self, work) };
        // SAFETY: `send` turned the box into this pointer, and the workqueue uses the item no more.
        let mut this = unsafe { KBox::from_raw(this) };
        if let Some(job) = this.job.take() {
            job.run();
        }
    }
}

/// Runs `f` on up to `count` kernel threads at a time, wherever CPUs are free; on fewer, down to none, where
/// memory is short. Returns when it has run on one of them and runs on none any more.
pub(crate) fn run_on_workers(count: usize, f: &(impl Fn() + Send + Sync)) {
    let mut workers = KVec::new();
    for _ in 0..count {
        let worker = Worker::new(
            Ok(Shared(f)),
            kernel::c_str!("coax_shared"),
            kernel::static_lock_class!(),
        );
        let Ok(worker) = KBox::pin_init(worker, GFP_KERNEL) else {
            break;
        };
        worker.queue_anywhere();
        if workers.push(worker, GFP_KERNEL).is_err() {
            break;
        }
    }
    if let Some(first) = workers.first() {
        first.flush();
    }
    // Dropping the others waits for those that run, and cancels those that have not begun.
}

struct Shared<'a, F>(&'a F);

impl<F: Fn() + Send + Sync> Work for Shared<'_, F> {
    fn run(&self) {
        (self.0)();
    }
}

/// Initialises a [`Worker`] with a lock class of its own.
#[macro_export]
macro_rules! new_worker {
    ($data:expr, $name:literal) => {
        $crate::kapi::work::Worker::new($data, kernel::c_str!($name), kernel::static_lock_class!())
    };
}

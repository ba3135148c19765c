// SPDX-License-Identifier: GPL-2.0

//! Kernel threads for what may wait long, and has to end all the same when it is told to.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use crate::sys;
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    ffi::{c_int, c_void},
    prelude::*,
    str::CStr,
    sync::atomic::{Acquire, Atomic, Release},
};

/// What a [`Thread`] does, once.
pub(crate) trait Task: Send + Sync {
    /// Runs in a thread of its own.
    fn run(&self);
}

struct Shared<T> {
    task: T,
    ended: Atomic<bool>,
}

/// A thread with its task. Dropping it tells it to end and waits until it has, so that its own task must
/// not drop it.
pub(crate) struct Thread<T: Task> {
    raw: NonNull<bindings::task_struct>,
    shared: KBox<Shared<T>>,
}

// SAFETY: A thread may be stopped from any other; `T` is `Send` by `Task`.
unsafe impl<T: Task> Send for Thread<T> {}
// SAFETY: There is nothing to be changed by a shared reference; `T` is `Sync` by `Task`.
unsafe impl<T: Task> Sync for Thread<T> {}

impl<T: Task> Thread<T> {
    /// Has a new thread of that name do `task`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. `EINTR`: the caller was killed.
    pub(crate) fn new(name: &'static CStr, task: T) -> Result<Self> {
        let shared = KBox::new(
            Shared {
                task,
                ended: Atomic::new(false),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The thread uses `shared`, which stays until `drop` has seen it end.
        let raw = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(Self::main),
                (&raw const *shared).cast_mut().cast(),
                bindings::NUMA_NO_NODE,
                name.as_ptr().cast(),
            )
        })?;
        // SAFETY: The thread has not begun, so that its task is there; the reference is for
        // `kthread_stop_put`, because it may end before.
        unsafe { bindings::get_task_struct(raw) };
        // SAFETY: As above.
        unsafe { bindings::wake_up_process(raw) };
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;
        Ok(Thread { raw, shared })
    }

    /// Whether the task is done.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.ended.load(Acquire)
    }

    unsafe extern "C" fn main(data: *mut c_void) -> c_int {
        // SAFETY: Who started the thread keeps the object until it has ended.
        let shared = unsafe { &*data.cast::<Shared<T>>() };
        // SAFETY: No preconditions.
        unsafe { sys::coax_thread_takes_signals() };
        shared.task.run();
        shared.ended.store(true, Release);
        0
    }
}

impl<T: Task> Drop for Thread<T> {
    fn drop(&mut self) {
        // What ends an interruptible wait is `kthread_stop`, and a killable one the signal.
        // SAFETY: The task is kept by the reference that `new` took.
        unsafe { sys::coax_thread_signal(self.raw.as_ptr()) };
        // SAFETY: As above; the reference is given up here. A thread that had not begun does not.
        unsafe { bindings::kthread_stop_put(self.raw.as_ptr()) };
    }
}

/// Whether the calling [`Thread`] was told to end.
pub(crate) fn should_stop() -> bool {
    // SAFETY: The caller is a kernel thread.
    unsafe { bindings::kthread_should_stop() }
}

// SPDX-License-Identifier: GPL-2.0

//! Memory of a device as ordinary memory of a memory node: hot-added, and movable only.
//!
//! The kernel onlines memory for its own data too, where an administrator or a boot parameter says
//! so (`online_kernel`, `online`). Such data can never be moved away again, so a notifier refuses
//! any onlining outside of `ZONE_MOVABLE`.
//!
//! C headers: [`include/linux/memory_hotplug.h`](srctree/include/linux/memory_hotplug.h),
//! [`include/linux/memory.h`](srctree/include/linux/memory.h)

use crate::{
    kapi::{completion::Completion, node::MemoryNode, virtio::ShmRegion},
    sys,
};
use kernel::{
    bindings, container_of,
    error::{from_err_ptr, to_result},
    ffi::{c_int, c_ulong, c_void},
    new_mutex, pr_warn_once,
    prelude::*,
    str::CStr,
    sync::Mutex,
    time::{delay::fsleep, Delta},
    types::Opaque,
};

/// The only form of resource names that `add_memory_driver_managed` takes. `/proc/iomem` shows it
/// as long as the memory is there, which an object of this module outlives.
const RESOURCE_NAME: &CStr = c"System RAM (coax)";
/// Name of the thread that empties the memory.
const THREAD_NAME: &CStr = c"coax_offline";
/// Length of one attempt to remove the memory where it must go, 10 s: then somebody is told that it
/// does not.
const ATTEMPT_MS: u32 = 10_000;
/// Pause between such attempts, which may have failed at once.
const PAUSE: Delta = Delta::from_secs(1);

/// Bytes of which the kernel adds and removes memory in multiples.
pub(crate) fn block_bytes() -> u64 {
    // SAFETY: No preconditions.
    unsafe { sys::memory_block_size_bytes() as u64 }
}

/// A device's memory, which is in the system between [`Self::add`] and [`Self::remove`]; removed,
/// however long that takes, when dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct NodeMemory {
    #[pin]
    notifier: Opaque<bindings::notifier_block>,
    node: MemoryNode,
    memory: ShmRegion,
    #[pin]
    added: Mutex<bool>,
}

// SAFETY: The notifier may be unregistered from any thread.
unsafe impl Send for NodeMemory {}
// SAFETY: Adding and removing are serialised by `added`; the callback only reads.
unsafe impl Sync for NodeMemory {}

impl NodeMemory {
    /// Memory that is to become that of `node`, and is not yet.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the memory is not made of whole blocks of [`block_bytes`]. `EBUSY`: the node has
    /// CPUs or memory of others. `ENOMEM`.
    pub(crate) fn new(node: u32, memory: ShmRegion) -> Result<Pin<KBox<Self>>> {
        let beyond = (memory.start() | memory.len()).checked_rem(block_bytes());
        if memory.len() == 0 || beyond != Some(0) {
            return Err(EINVAL);
        }
        let node = MemoryNode::vacant(node)?;
        let this = KBox::pin_init(
            pin_init!(Self {
                notifier <- Opaque::ffi_init(|slot: *mut bindings::notifier_block| {
                    let block = bindings::notifier_block {
                        notifier_call: Some(Self::changing),
                        ..pin_init::zeroed()
                    };
                    // SAFETY: `slot` is valid for a write.
                    unsafe { slot.write(block) }
                }),
                node,
                memory,
                added <- new_mutex!(false, "coax_node_memory"),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The block is pinned and unregistered in `drop`. Registering fails only for one that
        // is registered already.
        unsafe { sys::register_memory_notifier(this.notifier.get()) };
        Ok(this)
    }

    /// The node.
    pub(crate) fn node(&self) -> MemoryNode {
        self.node
    }

    /// Gives the memory to the system, which onlines it now or when an administrator says so.
    ///
    /// # Errors
    ///
    /// `EEXIST`: the physical range is taken. `ENOMEM`. `E2BIG`, `EINVAL`: it cannot be addressed.
    pub(crate) fn add(&self) -> Result {
        let mut added = self.added.lock();
        if *added {
            return Ok(());
        }
        // SAFETY: The memory is the device's, behaves as RAM, and stays until it is removed; the name
        // lives at least as long.
        to_result(unsafe {
            bindings::add_memory_driver_managed(
                self.node.number(),
                self.memory.start(),
                self.memory.len(),
                RESOURCE_NAME.as_ptr().cast(),
                0,
            )
        })?;
        *added = true;
        Ok(())
    }

    /// Moves all pages away, and takes the memory from the system. What the attempt offlined is
    /// online again if it fails.
    ///
    /// # Errors
    ///
    /// `EBUSY`: something holds pages, or there is no room for them elsewhere, after `limit_ms`
    /// milliseconds. `ENOMEM`.
    pub(crate) fn remove(&self, limit_ms: u32) -> Result {
        let mut added = self.added.lock();
        if !*added {
            return Ok(());
        }
        // The kernel tries without end until a signal comes (`offline_pages()`), so it does in a thread
        // that gets one when time is up: `kthread_stop` is a signal too.
        let removal = KBox::pin_init(
            try_pin_init!(Removal {
                memory: self.memory,
                done <- Completion::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        // SAFETY: The thread uses `removal`, which stays until the thread has ended.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(Removal::run),
                (&raw const *removal).cast_mut().cast(),
                bindings::NUMA_NO_NODE,
                THREAD_NAME.as_ptr().cast(),
            )
        })?;
        // SAFETY: The thread has not begun, so that its task is there; the reference is for
        // `kthread_stop_put`, because it may end before.
        unsafe { bindings::get_task_struct(task) };
        // SAFETY: As above.
        unsafe { bindings::wake_up_process(task) };
        // Whether it is done or must be stopped, the thread's own result says.
        let _ = removal.done.wait(limit_ms);
        // SAFETY: The task is kept by the reference taken above, which is given up here.
        let result = to_result(unsafe { bindings::kthread_stop_put(task) });
        match result {
            Ok(()) => *added = false,
            Err(error) if error == EINTR => return Err(EBUSY),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// As [`Self::remove`], however long it takes; says in the kernel's log that it does.
    pub(crate) fn remove_for_good(&self) {
        while let Err(error) = self.remove(ATTEMPT_MS) {
            pr_warn!(
                "the memory of node {} cannot be taken out of the system: {:?}; trying again\n",
                self.node.number(),
                error
            );
            fsleep(PAUSE);
        }
    }

    /// Refuses that memory of ours gets online for the kernel's own data.
    unsafe extern "C" fn changing(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        if action != sys::memory_block_state_MEM_GOING_ONLINE as c_ulong {
            return bindings::NOTIFY_DONE as c_int;
        }
        let block: *mut Opaque<bindings::notifier_block> = block.cast();
        // SAFETY: Only `new` sets this function, for the block of a `Self` that is alive until it has
        // unregistered the block.
        let this = unsafe { &*container_of!(block, Self, notifier) };
        // SAFETY: With this action the data is a `memory_notify`.
        let first = unsafe { (*data.cast::<sys::memory_notify>()).start_pfn };
        let at = first as u64 * 4096;
        let ours = (this.memory.start()..this.memory.start() + this.memory.len()).contains(&at);
        // SAFETY: What goes online has struct pages, which are in their zone already.
        if ours && !unsafe { sys::coax_pfn_is_movable(first) } {
            pr_warn_once!("device memory can be onlined with online_movable only\n");
            // SAFETY: No preconditions.
            return unsafe { sys::coax_notifier_from_errno(EPERM.to_errno()) };
        }
        bindings::NOTIFY_DONE as c_int
    }
}

#[pinned_drop]
impl PinnedDrop for NodeMemory {
    fn drop(self: Pin<&mut Self>) {
        self.remove_for_good();
        // SAFETY: Registered by `new`.
        unsafe { sys::unregister_memory_notifier(self.notifier.get()) };
    }
}

/// One attempt to remove the memory.
#[pin_data]
struct Removal {
    memory: ShmRegion,
    #[pin]
    done: Completion,
}

impl Removal {
    unsafe extern "C" fn run(data: *mut c_void) -> c_int {
        // SAFETY: Who started the thread keeps the object until it has ended.
        let this = unsafe { &*data.cast::<Self>() };
        let (start, bytes) = (this.memory.start(), this.memory.len());
        // SAFETY: The range was added as a whole, in whole memory blocks.
        let result = unsafe { bindings::offline_and_remove_memory(start, bytes) };
        this.done.complete_all();
        result
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Counters of the driver; each says in its name what was counted, and none goes back.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// One counter.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Counter(Atomic::new(0))
    }

    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Sets the value if it is still zero.
    pub(crate) fn set_once(&self, value: u64) {
        let _ = self.0.cmpxchg(0, value, Relaxed);
    }

    /// The value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        pub(crate) struct $name {
            $($(#[$field_doc])* pub(crate) $field: Counter,)*
        }

        impl $name {
            /// All zero.
            pub(crate) const fn new() -> Self {
                $name { $($field: Counter::new(),)* }
            }

            /// Names and values.
            pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field.get())),*].into_iter()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (name, value) in self.all() {
                    f.write_fmt(fmt!("{} {}\n", name, value))?;
                }
                Ok(())
            }
        }
    };
}

counters! {
    /// What one device's driver did; the ioctl's `Stats` has all but those of atomic operations, looks and
    /// notifications.
    Stats {
        /// Requests for which something had to be done.
        page_requests,
        /// Requests taken from the device.
        translation_requests,
        /// Those answered with Success after something was done.
        responses_success,
        /// Those answered with Invalid Request.
        responses_invalid,
        /// Those answered with Response Failure.
        responses_failure,
        /// Invalidations sent.
        invalidations,
        /// Pages moved because the device touched them.
        to_device_fault,
        /// Pages moved on request.
        to_device_request,
        /// Pages brought back because a CPU touched them.
        to_system_fault,
        /// Pages brought back on request.
        to_system_request,
        /// Pages brought back by reset or removal.
        to_system_evict,
        /// Pages brought back to make room for a user with less than the fair share.
        to_system_share,
        /// Pages brought back because a cgroup's limit was lowered.
        to_system_limit,
        /// Pages that stayed because device memory was full.
        device_full,
        /// Pages given to the device for atomic operations.
        exclusive,
        /// Looks at mappings that changed meanwhile.
        retries,
        /// Requests that waited for somebody.
        waits,
        /// Ranges that the device told of, since it uses them often.
        notifications,
        /// Messages of the device that made no sense.
        device_errors,
        /// When the first page moved, in nanoseconds since boot.
        first_migration_ns,
    }
}

counters! {
    /// What was done for one context.
    ContextStats {
        /// Requests for which something had to be done.
        page_requests,
        /// Pages moved to device memory.
        to_device,
        /// Pages brought back by calls of this context.
        to_system,
        /// Commands submitted.
        commands,
        /// Invalidations sent.
        invalidations,
    }
}

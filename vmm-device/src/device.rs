// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device: what its queues share.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use coax_abi::wire;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::context::{ContextId, Contexts};
use crate::dma::DeviceMemory;
use crate::engine::gemm::TilePool;
use crate::guest_log::GuestLog;
use crate::intake::Intake;
use crate::job::Inbox;
use crate::pri::Pri;
use crate::queue;
use crate::stats::Stats;
use crate::sync::lock;

/// What the device announces in its configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Contexts, 1 … [`wire::MAX_CONTEXTS`].
    pub contexts: u32,
    /// Command queues, each with an engine; 1 … [`MAX_ENGINES`].
    pub engines: u16,
    /// Page requests that may be outstanding, 1 … [`wire::MAX_PAGE_REQUESTS`].
    pub page_requests: u32,
}

/// Most engines: each is a thread, and a queue that the front end has to set up.
pub const MAX_ENGINES: u16 = 16;

/// State shared by the threads of all queues.
#[derive(Debug)]
pub struct Device {
    /// Announced sizes.
    pub config: Config,
    /// Guest memory, replaced whenever the front end sends a new table.
    pub memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Address spaces.
    pub contexts: Contexts,
    /// Parked commands.
    pub pri: Pri,
    /// Who has looked at its queue.
    pub intake: Intake,
    /// Buffers that matrix multiplications share.
    pub tiles: TilePool,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Log of guest mistakes.
    pub log: Arc<GuestLog>,
    /// Where device memory lies.
    pub device_memory: Mutex<DeviceMemory>,
    /// Times that the device was reset.
    resets: AtomicU64,
    shutdown: AtomicBool,
}

impl Device {
    /// A device at power-on.
    pub fn new(config: Config) -> io::Result<Self> {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let inboxes = (0..config.engines)
            .map(|_| Inbox::new())
            .collect::<io::Result<Vec<_>>>()?;
        let stats = Arc::new(Stats::default());
        let log = Arc::new(GuestLog::default());
        Ok(Self {
            config,
            contexts: Contexts::new(config.contexts),
            pri: Pri::new(
                config.page_requests,
                inboxes,
                memory.clone(),
                Arc::clone(&stats),
                Arc::clone(&log),
            ),
            memory,
            intake: Intake::new(config.engines),
            tiles: TilePool::default(),
            stats,
            log,
            device_memory: Mutex::default(),
            resets: AtomicU64::new(0),
            shutdown: AtomicBool::new(false),
        })
    }

    /// The configuration space.
    pub fn config_space(&self) -> wire::Config {
        wire::Config {
            magic: wire::MAGIC.into(),
            abi_version: wire::ABI_VERSION.into(),
            max_contexts: self.config.contexts.into(),
            command_queues: u32::from(self.config.engines).into(),
            page_request_capacity: self.config.page_requests.into(),
            services: wire::SERVICE_VIRTQUEUE.into(),
        }
    }

    /// Aborts all commands that were submitted and drops all translations; contexts stay open.
    pub fn abort_all(&self) {
        self.intake.wait(|| self.pri.wake_all());
        let contexts = self.contexts.all();
        self.contexts.abort(&contexts, || self.pri.abort_parked());
    }

    /// Closes a context: its commands that were submitted end with "aborted". False if it is
    /// not open.
    pub fn close(&self, context: ContextId) -> bool {
        self.intake.wait(|| self.pri.wake_all());
        let closed = self.contexts.close(context, || self.pri.abort_parked());
        if closed {
            self.pri.forget(context);
        }
        closed
    }

    /// Returns to the state at power-on. When this returns, no command of before accesses
    /// memory or will be answered.
    pub fn reset(&self) {
        for context in self.contexts.all() {
            self.contexts
                .close(context.id(), || self.pri.abort_parked());
        }
        self.pri.reset();
        self.resets.fetch_add(1, Ordering::Release);
        *lock(&self.device_memory) = DeviceMemory::default();
    }

    /// Times that the device was reset.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// Makes the engines end their loops.
    pub fn shut_down(&self) {
        self.shutdown.store(true, Ordering::Release);
        self.pri.wake_all();
    }

    /// Whether the device is ending.
    pub fn shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    /// Counts and logs a mistake of the guest.
    pub fn guest_error(&self, what: std::fmt::Arguments<'_>) {
        self.stats.guest_errors.bump();
        self.log.warn(what);
    }

    /// Counts and logs the failure of a ring operation.
    pub fn queue_error(&self, queue: &str, error: &queue::Error) {
        let mut text = format!("{queue} queue: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.guest_error(format_args!("{text}"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device: the machine, what surrounds it, and what it announces.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coax_abi::wire;

use crate::deviations::Deviations;
use crate::dma::DeviceMemory;
use crate::features::Features;
use crate::machine::Machine;
use crate::mmu::ContextId;
use crate::queues;
use crate::shell::Shell;
use crate::sync::lock;
use crate::transport::linger::Linger;

/// What the device announces in its configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Contexts, 1 … [`wire::MAX_CONTEXTS`].
    pub contexts: u32,
    /// Command queues, each with an engine; 1 … [`wire::MAX_COMMAND_QUEUES`].
    pub engines: u16,
    /// Requests that may be outstanding, 1 … [`wire::MAX_PAGE_REQUESTS`].
    pub page_requests: u32,
}

/// How long the copy after this one is looked for: a migration of many pages sends one every half a
/// millisecond or sooner.
const COPY_LINGER: Duration = Duration::from_micros(500);
/// How long the driver's next message is looked for while requests are outstanding.
const ANSWER_LINGER: Duration = Duration::from_micros(50);

/// State shared by the threads of all queues.
#[derive(Debug)]
pub struct Device {
    /// Announced sizes.
    pub config: Config,
    /// What the driver agreed to.
    pub features: Features,
    /// Commands, requests and address spaces.
    pub machine: Machine<Shell>,
    /// Looking for page copies.
    pub copy_linger: Linger,
    /// Looking for answers.
    pub answer_linger: Linger,
    shutdown: AtomicBool,
}

impl Device {
    /// A device at power-on.
    pub fn new(config: Config, deviations: Deviations) -> io::Result<Self> {
        let shell = Shell::new(wire::queue_count(config.engines), deviations)?;
        let engines = usize::from(config.engines);
        Ok(Self {
            config,
            features: Features::default(),
            machine: Machine::new(config.contexts, engines, config.page_requests, shell),
            copy_linger: Linger::new(COPY_LINGER),
            answer_linger: Linger::new(ANSWER_LINGER),
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
            services: self.services().into(),
        }
    }

    /// `SERVICE_*` bits.
    fn services(&self) -> u32 {
        if self.machine.outside.service.pcie.is_connected() {
            wire::SERVICE_VIRTQUEUE | wire::SERVICE_PCIE
        } else {
            wire::SERVICE_VIRTQUEUE
        }
    }

    /// Aborts all commands that were submitted and drops all translations; contexts stay open.
    pub fn abort_all(&self) {
        self.take_all();
        self.machine.abort_all();
    }

    /// Closes a context: its commands that were submitted end with "aborted". False if it is
    /// not open.
    pub fn close(&self, context: ContextId) -> bool {
        self.take_all();
        let closed = self.machine.close(context);
        if closed {
            self.machine.outside.service.pcie.close(context);
        }
        closed
    }

    /// Closes all contexts.
    pub fn close_all(&self) {
        for context in self.machine.contexts() {
            self.close(context);
        }
    }

    /// Takes the commands that no engine has taken yet.
    fn take_all(&self) {
        for engine in 0..usize::from(self.config.engines) {
            queues::command::take_all(self, engine);
        }
    }

    /// Returns to the state at power-on. When this returns, no command of before accesses
    /// memory or will be answered.
    pub fn reset(&self) {
        self.machine.reset();
        self.machine.outside.service.pcie.reset();
        self.machine
            .outside
            .ports
            .iter()
            .for_each(|port| port.renew());
        *lock(&self.machine.outside.device_memory) = DeviceMemory::default();
    }

    /// Makes the engines end their loops.
    pub fn shut_down(&self) {
        self.shutdown.store(true, Ordering::Release);
        self.machine.outside.wake_all();
    }

    /// Whether the device is ending.
    pub fn shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }
}

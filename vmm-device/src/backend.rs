// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vhost-user: features, configuration space, and which thread serves which queue.
//!
//! | thread | queues |
//! |---|---|
//! | 0 | control |
//! | 1 | copy |
//! | 2 | translation, request |
//! | 3 … | one command queue each |
//!
//! So copies and invalidations are never behind user commands. `handle_event` returns `Ok` in
//! any case: an error would end the thread.
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};

use coax_abi::wire::{
    queue_count, F_ATOMIC, F_TRANSLATION_AHEAD, QUEUE_COMMAND, QUEUE_CONTROL, QUEUE_COPY,
    QUEUE_SIZE,
};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringEpollHandler};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    new_event_consumer_and_notifier, EventConsumer, EventFlag, EventNotifier,
};
use zerocopy::IntoBytes;

use crate::device::Device;
use crate::queue::Ring;
use crate::service;
use crate::sync::lock;
use crate::worker::Worker;

const THREAD_CONTROL: usize = 0;
const THREAD_COPY: usize = 1;
const THREAD_TRANSLATION: usize = 2;
const THREAD_ENGINE: usize = 3;

/// Event of the translation thread for its first ring.
const EVENT_TRANSLATION: u16 = 0;
/// Event of the translation thread for its second ring.
const EVENT_REQUEST: u16 = 1;

/// Thread of a queue that is no command queue.
fn thread_of(queue: u16) -> usize {
    match queue {
        QUEUE_CONTROL => THREAD_CONTROL,
        QUEUE_COPY => THREAD_COPY,
        _ => THREAD_TRANSLATION,
    }
}

/// The back end as the vhost-user daemon sees it.
#[derive(Debug)]
pub struct Backend {
    device: Arc<Device>,
    workers: Vec<Worker>,
    /// Held by the threads below [`THREAD_ENGINE`] while they serve their queues.
    serving: [Mutex<()>; THREAD_ENGINE],
}

impl Backend {
    /// A back end for a device.
    pub fn new(device: Arc<Device>) -> Self {
        let workers = (0..usize::from(device.config.engines))
            .map(Worker::new)
            .collect();
        Self {
            device,
            workers,
            serving: Default::default(),
        }
    }

    /// Waits until the thread of a queue is done with what it took from it. The queue is
    /// stopped, so the thread takes nothing more.
    fn wait_idle(&self, queue: u16) {
        match queue.checked_sub(QUEUE_COMMAND) {
            Some(engine) => {
                if let Some(worker) = self.workers.get(usize::from(engine)) {
                    worker.wait_idle();
                }
            }
            None => drop(lock(&self.serving[thread_of(queue)])),
        }
    }

    /// Registers the events that resume commands with the engines' threads.
    pub fn register_wakers(
        &self,
        handlers: &[Arc<VringEpollHandler<Arc<Self>>>],
    ) -> io::Result<()> {
        // Numbers up to the queue count are taken by the daemon itself.
        let event = self.num_queues() as u64 + 1;
        for (engine, handler) in handlers.iter().skip(THREAD_ENGINE).enumerate() {
            if let Some(inbox) = self.device.pri.inbox(engine) {
                handler.register_listener(inbox.wake_fd(), EventSet::IN, event)?;
            }
        }
        Ok(())
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        queue_count(self.device.config.engines).into()
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE.into()
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | 1 << F_ATOMIC
            | 1 << F_TRANSLATION_AHEAD
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        log::debug!("device reset");
        self.device.reset();
        (0..queue_count(self.device.config.engines)).for_each(|queue| self.wait_idle(queue));
    }

    // The rings keep this setting themselves.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.device.config_space();
        let bytes = config.as_bytes();
        let end = offset.saturating_add(size) as usize;
        // An empty answer tells the front end that the range is outside.
        bytes
            .get(offset as usize..end)
            .map(<[u8]>::to_vec)
            .unwrap_or_default()
    }

    // The device and the rings share the table, which the daemon has replaced by now.
    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        let engines = QUEUE_COMMAND..queue_count(self.device.config.engines);
        [0b0001, 0b0010, 0b1100]
            .into_iter()
            .chain(engines.map(|queue| 1 << queue))
            .collect()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC | EventFlag::NONBLOCK)
            .inspect_err(|error| log::error!("cannot create an exit event: {error}"))
            .ok()
    }

    // The VM may only be paused: commands stay, and go on when the queues are started again.
    // A driver that starts anew is preceded by a reset of the device.
    fn stop_vring(&self, index: u32) -> io::Result<()> {
        log::debug!("queue {index} stopped");
        match u16::try_from(index) {
            Ok(queue) if queue < queue_count(self.device.config.engines) => self.wait_idle(queue),
            _ => log::error!("queue {index} does not exist"),
        }
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        rings: &[Ring],
        thread: usize,
    ) -> io::Result<()> {
        let device = &*self.device;
        let _serving = self.serving.get(thread).map(lock);
        match (thread, rings) {
            (THREAD_CONTROL, [ring]) => service::control::run(device, ring),
            (THREAD_COPY, [ring]) => service::page_copy::run(device, ring),
            (THREAD_TRANSLATION, [translation, request]) => match event {
                EVENT_TRANSLATION => service::translation::run(device, translation),
                EVENT_REQUEST => device.pri.buffers_came(request),
                _ => log::error!("unexpected event {event} of the translation thread"),
            },
            (_, [ring]) => match self.workers.get(thread.wrapping_sub(THREAD_ENGINE)) {
                Some(worker) => worker.run(device, ring),
                None => log::error!("unexpected thread {thread}"),
            },
            _ => log::error!("unexpected rings of thread {thread}"),
        }
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vhost-user: features, configuration space, and starting, stopping and resetting.
//!
//! The daemon has a thread for each entry of [`VhostUserBackend::queues_per_thread`], which calls
//! [`VhostUserBackend::handle_event`] for each bell that rings; that returns `Ok` in any case, since
//! an error would end the thread. Before the front end connects, every thread hands its rings to
//! their ports, so that any thread may use any queue.
//!
//! A queue that is stopped or disabled has come to rest when the threads that serve it have been seen
//! outside: see [`serving`](super::serving). A reset of the device keeps all of them out, so that no
//! thread acts after it on what it took before.
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coax_abi::wire::{
    queue_count, F_ACCESS_NOTIFICATION, F_ATOMIC, F_TRANSLATION_AHEAD, QUEUE_COMMAND, QUEUE_SIZE,
};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringEpollHandler};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    new_event_consumer_and_notifier, EventConsumer, EventFlag, EventNotifier,
};
use zerocopy::IntoBytes;

use super::ring::{Ring, Served};
use super::serving::Serving;
use super::{thread_of, THREAD_CONTROL, THREAD_COPY, THREAD_ENGINE, THREAD_TRANSLATION};
use crate::device::Device;
use crate::fail_stop;
use crate::queues;
use crate::services::virtqueue;
use crate::sync::{lock, look_for};
use crate::time_slice;

/// Longest wait for the threads to hand over their rings, which is the first thing that they do.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a memory table that was replaced is still in use: about the length
/// of a step.
const TABLE_LOOK: Duration = Duration::from_micros(100);
/// Event of the translation thread for its second ring.
const EVENT_REQUEST: u16 = 1;

/// The back end as the vhost-user daemon sees it.
#[derive(Debug)]
pub struct Backend {
    device: Arc<Device>,
    /// Each thread is inside while it serves its queues.
    serving: Vec<Arc<Serving>>,
    /// The memory table in use.
    table: Mutex<Arc<GuestMemoryMmap>>,
}

impl Backend {
    /// A back end for a device.
    pub fn new(device: Arc<Device>) -> Self {
        let threads = THREAD_ENGINE + usize::from(device.config.engines);
        let table = device.machine.outside.memory.memory().into_inner();
        Self {
            device,
            serving: (0..threads).map(|_| Arc::default()).collect(),
            table: Mutex::new(table),
        }
    }

    /// The threads that serve a queue. That of the translation queue takes steps of commands that it
    /// resumes.
    fn serving(&self, queue: u16) -> Vec<Arc<Serving>> {
        let resumes = (queue >= QUEUE_COMMAND).then_some(THREAD_TRANSLATION);
        let threads = [Some(thread_of(queue)), resumes];
        let threads = threads.into_iter().flatten();
        threads
            .map(|thread| Arc::clone(&self.serving[thread]))
            .collect()
    }

    /// Queues of a thread.
    fn queues_of(&self, thread: usize) -> impl Iterator<Item = u16> {
        let all = 0..queue_count(self.device.config.engines);
        all.filter(move |&queue| thread_of(queue) == thread)
    }

    /// Registers the events that wake the threads, and has the threads hand over their rings.
    pub fn register_wakers(
        &self,
        handlers: &[Arc<VringEpollHandler<Arc<Self>>>],
    ) -> io::Result<()> {
        let shell = &self.device.machine.outside;
        for (thread, handler) in handlers.iter().enumerate() {
            if let Some(waker) = shell.wake_fd(thread) {
                handler.register_listener(waker, EventSet::IN, self.wake_event())?;
            }
        }
        shell.wake_all();
        let start = Instant::now();
        while !shell.ports.iter().all(|port| port.is_attached()) {
            if start.elapsed() > ATTACH_TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(TABLE_LOOK);
        }
        Ok(())
    }

    /// Has all queues and engines stop, and waits until they have. Whoever holds up another comes
    /// first: the control queue waits for engines, which still answer it here.
    pub fn quiesce(&self) {
        self.device.shut_down();
        self.serving.iter().for_each(|serving| drop(serving.stop()));
    }

    /// Number of the event that wakes a thread: those up to the queue count are the daemon's own.
    fn wake_event(&self) -> u64 {
        self.num_queues() as u64 + 1
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
            | 1 << F_ACCESS_NOTIFICATION
    }

    fn acked_features(&self, features: u64) {
        self.device.features.agree(features);
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
        let _idle: Vec<_> = self.serving.iter().map(|serving| serving.stop()).collect();
        self.device.reset();
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

    // The device and the rings share the table, which the daemon has replaced by now. What the front
    // end has taken away must not be written any more when this returns.
    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let mut table = lock(&self.table);
        let old = std::mem::replace(&mut *table, memory.memory().into_inner());
        // A thread takes the table anew for each step, each copy and each chain.
        let unused = || Arc::strong_count(&old) == 1;
        look_for(TABLE_LOOK, "end of accesses to memory taken away", unused);
        // Rings that could not be read may be readable now.
        self.device.machine.outside.wake_all();
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        let threads = 0..self.serving.len();
        let mask = |thread| self.queues_of(thread).map(|queue| 1 << queue).sum();
        threads.map(mask).collect()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC | EventFlag::NONBLOCK)
            .inspect_err(|error| log::error!("cannot create an exit event: {error}"))
            .ok()
    }

    // The VM may only be paused: commands stay, and go on when the queues are started again. A
    // driver that starts anew is preceded by a reset of the device, or known by its rings.
    fn stop_vring(&self, index: u32) -> io::Result<()> {
        log::debug!("queue {index} stopped");
        match u16::try_from(index) {
            Ok(queue) if queue < queue_count(self.device.config.engines) => {
                let serving = self.serving(queue);
                serving.iter().for_each(|serving| drop(serving.stop()));
            }
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
        if fail_stop::bind_to_thread(&self.device) && thread < THREAD_ENGINE {
            if let Err(error) = time_slice::shorten() {
                log::debug!("thread {thread} keeps its time slices: {error}");
            }
        }
        let device = &*self.device;
        let shell = &device.machine.outside;
        let _serving = self.serving.get(thread).map(|serving| serving.enter());
        if device.shutting_down() {
            return Ok(());
        }
        if u64::from(event) == self.wake_event() {
            shell.clear_wake(thread);
            for (queue, ring) in self.queues_of(thread).zip(rings) {
                if let Some(waker) = shell.waker(thread) {
                    let threads = self.serving(queue);
                    ring.served_by(Served { threads, waker });
                }
                shell.port(queue).attach(ring);
            }
        }
        match thread {
            THREAD_CONTROL => queues::control::run(device),
            THREAD_COPY => queues::page_copy::run(device),
            THREAD_TRANSLATION if event == EVENT_REQUEST => virtqueue::buffers_came(device),
            THREAD_TRANSLATION => {
                virtqueue::run(device);
                if u64::from(event) == self.wake_event() {
                    virtqueue::buffers_came(device);
                }
            }
            _ => queues::command::run(device, thread - THREAD_ENGINE),
        }
        Ok(())
    }
}

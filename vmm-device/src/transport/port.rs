// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports: the queues as the device uses them. The only file that walks rings.
//!
//! A ring is used only while the front end has it started and enabled, which is checked under its
//! lock; the front end stops it under the same lock. Any thread may take and answer chains.
//!
//! While a ring is stopped, as when the VM is paused, answers are *owed*: they are given when it is
//! started again. A ring that is started again with other addresses, or elsewhere in its available
//! ring, has begun a new *life*: its driver knows nothing of what was taken before, and what is owed
//! would be written over memory that is used for something else by now. It is dropped.
//!
//! Locks: the port's, then the ring's.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock};

use thiserror::Error;
use vhost_user_backend::{VringState, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use super::chain::{parse, Chain, ReplySlot};
use super::ring::Ring;
use crate::sync::lock;

type RingState = VringState<GuestMemoryAtomic<GuestMemoryMmap>>;

/// A ring that the guest left in a state that makes no sense.
#[derive(Debug, Error)]
pub enum Error {
    /// The available ring cannot be read.
    #[error("Cannot take a chain from the available ring")]
    Available(#[source] virtio_queue::Error),
    /// The next entry of the available ring cannot be read.
    #[error("Cannot read entry {0} of the available ring")]
    Entry(u16),
    /// The used ring cannot be written.
    #[error("Cannot put chain {head} into the used ring")]
    Used {
        /// Head of the chain.
        head: u16,
        /// Cause.
        #[source]
        source: virtio_queue::Error,
    },
    /// The notification state of the ring cannot be accessed.
    #[error("Cannot set up the notifications of the ring")]
    Notification(#[source] virtio_queue::Error),
    /// The front end cannot be notified.
    #[error("Cannot notify the front end")]
    Signal(#[source] std::io::Error),
}

/// One queue.
#[derive(Debug)]
pub struct Port {
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ring: OnceLock<Attached>,
    state: Mutex<State>,
}

/// A ring; rings cannot be printed.
struct Attached(Ring);

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attached")
    }
}

#[derive(Debug, Default)]
struct State {
    /// Where the ring was when it was used last.
    place: Option<Place>,
    life: u64,
    /// Answers that are to be given when the ring is started.
    owed: Vec<(ReplySlot, Vec<u8>)>,
}

/// Where a ring lies, and how far it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    descriptors: u64,
    available: u64,
    used: u64,
    next: u16,
}

impl Place {
    fn of(ring: &RingState) -> Self {
        let queue = ring.get_queue();
        Self {
            descriptors: queue.desc_table(),
            available: queue.avail_ring(),
            used: queue.used_ring(),
            next: queue.next_avail(),
        }
    }
}

/// What became of a chain that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It has its reply, now or when the ring is started.
    Delivered,
    /// It has no room for the reply: it was answered with length 0.
    NoRoom,
}

/// Bounds of what is taken from a chain.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Most bytes of the readable part.
    pub request: usize,
    /// Bytes of the writable part that are of interest.
    pub reply: usize,
}

impl Port {
    /// A port without a ring, as if it were stopped.
    pub fn new(memory: GuestMemoryAtomic<GuestMemoryMmap>) -> Self {
        Self {
            memory,
            ring: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// Gives the port its ring, once.
    pub fn attach(&self, ring: &Ring) {
        self.ring.get_or_init(|| Attached(ring.clone()));
    }

    /// Whether the port has its ring.
    pub fn is_attached(&self) -> bool {
        self.ring.get().is_some()
    }

    /// Uses the ring; `None` if it is stopped.
    fn with<R>(
        &self,
        state: &mut State,
        act: impl FnOnce(&mut RingState, &mut State) -> R,
    ) -> Option<R> {
        let Attached(ring) = self.ring.get()?;
        let mut ring = ring.get_mut();
        if !ring.is_enabled() || !ring.get_queue().ready() {
            return None;
        }
        let place = Place::of(&ring);
        if state.place.replace(place).is_some_and(|last| last != place) {
            state.life += 1;
            state.owed.clear();
        }
        let result = act(&mut ring, state);
        state.place = Some(Place::of(&ring));
        Some(result)
    }

    /// The life that the ring is in; `None` if it is stopped.
    pub fn life(&self) -> Option<u64> {
        self.with(&mut lock(&self.state), |_, state| state.life)
    }

    /// The life that the ring was in when it was used last.
    pub fn last_life(&self) -> u64 {
        let mut state = lock(&self.state);
        let last = state.life;
        self.with(&mut state, |_, state| state.life).unwrap_or(last)
    }

    /// Takes the next chain, if there is one.
    pub fn take(&self, sizes: Sizes) -> Result<Option<Chain>, Error> {
        let memory = self.memory.memory();
        let popped = self.with(&mut lock(&self.state), |ring, state| {
            let chain = pop(ring, &memory)?;
            Ok(chain.map(|chain| (chain, state.life)))
        });
        let chain = popped.transpose()?.flatten();
        Ok(chain.map(|(chain, life)| parse(chain, life, &memory, sizes.request, sizes.reply)))
    }

    /// Chains that could be taken.
    pub fn available(&self) -> Result<u16, Error> {
        let memory = self.memory.memory();
        let count = self.with(&mut lock(&self.state), |ring, _| waiting(ring, &memory));
        count.unwrap_or(Ok(0))
    }

    /// Asks for a kick when more chains come; true if there are some already.
    pub fn await_kick(&self) -> Result<bool, Error> {
        let memory = self.memory.memory();
        let more = self.with(&mut lock(&self.state), |ring, _| {
            ring.get_queue_mut()
                .enable_notification(&*memory)
                .map_err(Error::Notification)
        });
        more.unwrap_or(Ok(false))
    }

    /// Answers a chain, and notifies the driver if it wants to be; later if the ring is stopped.
    pub fn answer(&self, reply: ReplySlot, bytes: &[u8]) -> Result<Answered, Error> {
        let memory = self.memory.memory();
        let mut state = lock(&self.state);
        let answered = self.with(&mut state, |ring, state| {
            if reply.life != state.life {
                return Ok(Answered::Delivered);
            }
            let answered = put(ring, &memory, &reply, bytes)?;
            notify(ring, &memory)?;
            Ok(answered)
        });
        answered.unwrap_or_else(|| {
            if reply.life == state.life {
                state.owed.push((reply, bytes.to_vec()));
            }
            Ok(Answered::Delivered)
        })
    }

    /// Gives the answers that are owed, if the ring is started.
    pub fn pay(&self) -> Result<(), Error> {
        let mut state = lock(&self.state);
        if state.owed.is_empty() {
            return Ok(());
        }
        let memory = self.memory.memory();
        let paid = self.with(&mut state, |ring, state| {
            let mut result = Ok(());
            for (reply, bytes) in std::mem::take(&mut state.owed) {
                result = result.and(put(ring, &memory, &reply, &bytes).map(drop));
            }
            result.and(notify(ring, &memory))
        });
        paid.unwrap_or(Ok(()))
    }

    /// Fills the next buffer of a queue of writable buffers, without notifying; false if there is
    /// none that is large enough. Buffers that make no sense, or are too small, are given back
    /// empty where they can be, and reported to `bad`.
    pub fn push(&self, bytes: &[u8], mut bad: impl FnMut(&Error)) -> Result<bool, Error> {
        let memory = self.memory.memory();
        let pushed = self.with(&mut lock(&self.state), |ring, state| {
            while let Some(chain) = pop(ring, &memory)? {
                let chain = parse(chain, state.life, &memory, 0, bytes.len());
                match put(ring, &memory, &chain.reply, bytes) {
                    Ok(Answered::Delivered) => return Ok(true),
                    Ok(Answered::NoRoom) => {}
                    Err(Error::Used {
                        head,
                        source: source @ virtio_queue::Error::InvalidDescriptorIndex,
                    }) => bad(&Error::Used { head, source }),
                    Err(error) => return Err(error),
                }
            }
            Ok(false)
        });
        pushed.unwrap_or(Ok(false))
    }

    /// Notifies the driver of buffers that were pushed, if it wants to be.
    pub fn notify(&self) -> Result<(), Error> {
        let memory = self.memory.memory();
        let notified = self.with(&mut lock(&self.state), |ring, _| notify(ring, &memory));
        notified.unwrap_or(Ok(()))
    }
}

fn waiting(ring: &RingState, memory: &GuestMemoryMmap) -> Result<u16, Error> {
    let queue = ring.get_queue();
    let index = queue
        .avail_idx(memory, Ordering::Acquire)
        .map_err(Error::Available)?;
    Ok(index.0.wrapping_sub(queue.next_avail()))
}

fn pop<'m>(
    ring: &mut RingState,
    memory: &'m GuestMemoryMmap,
) -> Result<Option<virtio_queue::DescriptorChain<&'m GuestMemoryMmap>>, Error> {
    let waiting = waiting(ring, memory)?;
    let queue = ring.get_queue_mut();
    let chain = queue.iter(memory).map_err(Error::Available)?.next();
    match chain {
        None if waiting > 0 => Err(Error::Entry(queue.next_avail())),
        chain => Ok(chain),
    }
}

fn put(
    ring: &mut RingState,
    memory: &GuestMemoryMmap,
    reply: &ReplySlot,
    bytes: &[u8],
) -> Result<Answered, Error> {
    let delivered = reply.write(memory, bytes);
    let len = if delivered { bytes.len() as u32 } else { 0 };
    ring.get_queue_mut()
        .add_used(memory, reply.head, len)
        .map_err(|source| Error::Used {
            head: reply.head,
            source,
        })?;
    Ok(if delivered {
        Answered::Delivered
    } else {
        Answered::NoRoom
    })
}

fn notify(ring: &mut RingState, memory: &GuestMemoryMmap) -> Result<(), Error> {
    let wanted = ring
        .get_queue_mut()
        .needs_notification(memory)
        .map_err(Error::Notification)?;
    if wanted {
        ring.signal_used_queue().map_err(Error::Signal)?;
    }
    Ok(())
}

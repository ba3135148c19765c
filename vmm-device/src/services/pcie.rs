// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's IOMMU as the translation service, through PCIe ATS and PRI.
//!
//! vhost-user knows no PASID, so QEMU's device passes requests on from a socket of its own
//! (`wire`). One thread (`thread`) takes what comes from it and finishes each message before the
//! next. QEMU sends completions, page responses and invalidations in the order in which the IOMMU
//! produced them, so a translation that is filled here is never older than an invalidation that is
//! handled after it.
//!
//! A virtual CPU waits for the answer to an invalidation with QEMU's big lock held. So nothing on the
//! thread's way waits for QEMU: it takes the locks of `machine`, for some microseconds each, and
//! takes no step longer than a brief one. Writing to the socket waits for nothing, since a thread of
//! QEMU that takes no lock reads it.
//!
//! A PASID is a process on the device, and may have several contexts. QEMU is told of the first and
//! the last of them ([`Pcie::open`], [`Pcie::close`]); each such use has an *opening*, so that what
//! comes late for one reaches no other. The end of the connection closes all contexts of the service
//! before QEMU sees it.
//!
//! Locks: `state`, then `socket`. None is held while `machine` is called.
#![forbid(unsafe_code)]

mod requests;
mod thread;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};

use crate::mmu::ContextId;
use crate::resolve::service::TranslationService;
use crate::resolve::{Request, ResponseCode};
use crate::stats::Stats;
use crate::sync::{lock, wait_until, Arc, Condvar, Mutex};
use requests::{Effect, Pasid, Requests};
pub use thread::Served;
use wire::Message;

/// How long QEMU may take to open or close a PASID. A guest that does not answer the page requests of
/// one holds up its own closing.
const CONTROL_LIMIT: Duration = Duration::from_secs(5);

/// PCIe translation, whether somebody serves it or not.
#[derive(Debug)]
pub struct Pcie {
    state: Mutex<State>,
    changed: Condvar,
    socket: Mutex<Option<UnixStream>>,
    /// Has the thread look: something is refused, or it is to end.
    wake: OwnedFd,
    stats: Arc<Stats>,
}

#[derive(Debug, Default)]
struct State {
    connected: bool,
    stopping: bool,
    requests: Requests,
    uses: HashMap<u32, Use>,
    contexts: HashMap<ContextId, Pasid>,
    /// Opening given out last.
    opening: u32,
    /// OPEN and CLOSE that somebody waits for, by opening: whether it succeeded.
    asked: HashMap<u32, Option<bool>>,
    /// Requests that end without QEMU.
    ended: Vec<Effect>,
    /// A request found all slots in use.
    full: bool,
}

/// A PASID in use.
#[derive(Debug)]
struct Use {
    opening: u32,
    contexts: Vec<ContextId>,
}

impl Pcie {
    /// Without a connection.
    pub fn new(stats: Arc<Stats>) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            socket: Mutex::default(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stats,
        })
    }

    /// Whether QEMU serves it.
    pub fn is_connected(&self) -> bool {
        lock(&self.state).connected
    }

    /// Whether a context is translated by it.
    pub fn has(&self, context: ContextId) -> bool {
        lock(&self.state).contexts.contains_key(&context)
    }

    /// Begins to translate a context by a PASID; false if QEMU cannot.
    pub fn open(&self, context: ContextId, number: u32) -> bool {
        let opening = {
            let mut state = lock(&self.state);
            if !state.connected {
                return false;
            }
            if let Some(used) = state.uses.get_mut(&number) {
                used.contexts.push(context);
                let opening = used.opening;
                state.contexts.insert(context, Pasid { number, opening });
                return true;
            }
            let Some(opening) = state.opening.checked_add(1) else {
                return false;
            };
            state.opening = opening;
            opening
        };
        let pasid = Pasid { number, opening };
        let opened = self.ask(wire::OPEN, pasid) == Some(true);
        if opened {
            let mut state = lock(&self.state);
            let contexts = vec![context];
            state.uses.insert(number, Use { opening, contexts });
            state.contexts.insert(context, pasid);
        }
        opened
    }

    /// Ends the translation of a context that accesses no memory any more. Returns when QEMU has no page
    /// request of its PASID any more, if it was the last one.
    pub fn close(&self, context: ContextId) {
        let last = lock(&self.state).forget(context);
        if let Some(pasid) = last {
            if self.ask(wire::CLOSE, pasid).is_none() && self.is_connected() {
                log::warn!(
                    "PASID {} is not closed within {CONTROL_LIMIT:?}",
                    pasid.number
                );
            }
        }
    }

    /// Ends all translation, for a device that is reset: QEMU is told and not waited for.
    pub fn reset(&self) {
        let uses = {
            let mut state = lock(&self.state);
            state.contexts.clear();
            // Nobody waits for their answers.
            state.forget_uses().0
        };
        for pasid in uses {
            self.send(&control(wire::CLOSE, pasid));
        }
    }

    /// Asks something that concerns a use of a PASID, and waits for the answer.
    fn ask(&self, kind: u32, pasid: Pasid) -> Option<bool> {
        lock(&self.state).asked.insert(pasid.opening, None);
        self.send(&control(kind, pasid));
        let answered = |state: &State| state.asked.get(&pasid.opening).is_some_and(Option::is_some);
        wait_until(&self.changed, &self.state, CONTROL_LIMIT, |state| {
            !state.connected || answered(state)
        });
        lock(&self.state).asked.remove(&pasid.opening).flatten()
    }

    fn send(&self, message: &Message) {
        let socket = lock(&self.socket);
        let Some(stream) = &*socket else {
            return;
        };
        if let Err(error) = message.send(stream) {
            log::error!("PCIe translation: cannot send: {error}");
            // The thread sees the end.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn wake(&self) {
        if let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            log::error!("cannot wake the thread of PCIe translation: {error}");
        }
    }
}

impl State {
    /// Forgets a context; returns its PASID if it was the last one of that.
    fn forget(&mut self, context: ContextId) -> Option<Pasid> {
        let pasid = self.contexts.remove(&context)?;
        let used = self.uses.get_mut(&pasid.number)?;
        used.contexts.retain(|&other| other != context);
        if !used.contexts.is_empty() {
            return None;
        }
        self.uses.remove(&pasid.number);
        Some(pasid)
    }

    /// Forgets all uses; their requests end.
    fn forget_uses(&mut self) -> (Vec<Pasid>, Vec<Effect>) {
        let mut effects = Vec::new();
        self.requests.end(|_| true, &mut effects);
        let uses = self.uses.drain().map(|(number, used)| Pasid {
            number,
            opening: used.opening,
        });
        (uses.collect(), effects)
    }
}

impl TranslationService for Pcie {
    fn request(&self, request: &Request) -> bool {
        let mut state = lock(&self.state);
        let refused = requests::is_refused(request.miss.va);
        let code = match state.contexts.get(&request.context).copied() {
            Some(pasid) if state.connected && !refused => {
                let Some(message) = state.requests.begin(request, pasid) else {
                    state.full = true;
                    return false;
                };
                drop(state);
                self.send(&message);
                self.stats.translation_requests.bump();
                return true;
            }
            Some(_) if refused => ResponseCode::InvalidRequest,
            _ => ResponseCode::ResponseFailure,
        };
        state.ended.push(Effect::Answer {
            context: request.context,
            tag: request.tag,
            code: Some(code),
            entries: Vec::new(),
        });
        drop(state);
        self.wake();
        true
    }

    fn flush(&self) {}

    fn life(&self) -> u64 {
        0
    }
}

fn control(kind: u32, pasid: Pasid) -> Message {
    Message {
        kind: kind.into(),
        tag: pasid.opening.into(),
        pasid: pasid.number.into(),
        opening: pasid.opening.into(),
        ..Message::default()
    }
}

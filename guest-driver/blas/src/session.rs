// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device as this process has it: opened at the first call that is large enough, given up when it
//! fails, and tried again later.
//!
//! A program that becomes a daemon closes descriptors that it did not open, and gets files of its own by their
//! numbers. So a session is looked at before each call: one whose descriptors are not the device's any more is
//! given up, and another opened.
//!
//! A child of `fork` forgets its parent's session and opens its own: contexts belong to the memory of
//! who opened them. No lock of a session is taken in the child, since a thread that is not there may
//! have held it.
// UNSAFETY: commands name memory by bare addresses; sessions are shared by pointer.
#![expect(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::OnceLock;
use std::time::Instant;

use coax::abi::uapi::MAX_RANGE_BYTES;
use coax::{CommandId, Context, Error, Info, PageRange, MODE_PRIVATE, NO_NODE};

use crate::device::{Device, Work};
use crate::footprint::Found;
use crate::knowledge::Knowledge;
use crate::message;
use crate::model::Model;
use crate::outcome::Reason;
use crate::real::Real;
use crate::routine::Precision;
use crate::scratch::Pool;
use crate::settings::settings;

/// Most contexts of a process: the device does their commands at the same time.
const CONTEXTS: u32 = 4;
/// Milliseconds after which a device that was not there is tried again.
const RETRY_MS: u64 = 1000;

/// Contexts on one device, and what is known of it.
///
/// # Invariants
///
/// Sessions are never freed, so that a reference is good for ever. The contexts are there until
/// `closed` is set, and that is set by the one who drops them, when `retired` is set and nobody is
/// inside.
pub struct Session {
    contexts: ManuallyDrop<Vec<Context>>,
    /// Pages move to the device when it touches them: its memory is no memory node.
    moving: bool,
    /// A CPU's access brings a page back: device memory is private.
    faulting: bool,
    /// Memory beside the program's.
    pub pool: Pool,
    /// What is known of the device.
    pub knowledge: Knowledge,
    inside: AtomicUsize,
    retired: AtomicBool,
    closed: AtomicBool,
}

/// The session of this process, or null.
static CURRENT: AtomicPtr<Session> = AtomicPtr::new(std::ptr::null_mut());
/// When opening is tried again, in milliseconds since [`now_ms`] began to count.
static RETRY_AT: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since the first call.
fn now_ms() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Calls `body` with the session, or not at all if there is no device.
pub fn with<R>(body: impl FnOnce(&Session) -> R) -> Option<R> {
    let mut session = current()?;
    if !session.enter() {
        // Once anew: if its descriptors were closed by others, the device is still there.
        session = current()?;
        if !session.enter() {
            return None;
        }
    }
    let result = body(session);
    session.leave();
    Some(result)
}

/// The session of this process, opened now if there is none.
fn current() -> Option<&'static Session> {
    // SAFETY: Null, or a session, which is never freed.
    if let Some(session) = unsafe { CURRENT.load(SeqCst).as_ref() } {
        return Some(session);
    }
    let now = now_ms();
    if now < RETRY_AT.load(SeqCst) {
        return None;
    }
    let Ok((contexts, info)) = open() else {
        RETRY_AT.store(now + RETRY_MS, SeqCst);
        return None;
    };
    let session = Box::into_raw(Box::new(Session {
        contexts: ManuallyDrop::new(contexts),
        moving: info.node == NO_NODE,
        faulting: info.mode == MODE_PRIVATE,
        pool: Pool::new(),
        knowledge: Knowledge::new(),
        inside: AtomicUsize::new(0),
        retired: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    }));
    // SAFETY: Made above, and not freed.
    let session = unsafe { &*session };
    let mine = std::ptr::from_ref(session).cast_mut();
    match CURRENT.compare_exchange(std::ptr::null_mut(), mine, SeqCst, SeqCst) {
        Ok(_) => Some(session),
        Err(other) => {
            // Another thread was faster.
            session.retire();
            // SAFETY: Not null, so a session, which is never freed.
            unsafe { other.as_ref() }
        }
    }
}

/// A context for each engine, or as many as there are to be had, and what the device is.
fn open() -> Result<(Vec<Context>, Info), Error> {
    let device = &settings().device;
    let first = Context::open_path(device)?;
    let info = first.info()?;
    let engines = info.command_queues.clamp(1, CONTEXTS);
    // The driver deals engines out to contexts in turn.
    let others = (1..engines).map_while(|_| Context::open_path(device).ok());
    let contexts = std::iter::once(first).chain(others).collect();
    Ok((contexts, info))
}

/// What a child of `fork` does before anything else.
pub fn forget_in_child() {
    let parents = CURRENT.swap(std::ptr::null_mut(), SeqCst);
    RETRY_AT.store(0, SeqCst);
    // SAFETY: Null, or a session, which is never freed.
    if let Some(session) = unsafe { parents.as_ref() } {
        // With another thread of the parent inside this closes nothing; the files then stay open.
        session.retire();
    }
}

/// Sums of the counters of this process's contexts: pages moved to the device for them, and page
/// requests.
pub fn traffic() -> Option<(u64, u64)> {
    // SAFETY: Null, or a session, which is never freed.
    let session = unsafe { CURRENT.load(SeqCst).as_ref() }?;
    if !session.enter() {
        return None;
    }
    let mut sums = (0, 0);
    for stats in session
        .contexts
        .iter()
        .filter_map(|context| context.stats().ok())
    {
        sums.0 += stats.context_to_device;
        sums.1 += stats.context_page_requests;
    }
    session.leave();
    Some(sums)
}

/// Times of the device in single and in double precision, where they were measured.
pub fn known_models() -> [Option<Model>; 2] {
    // SAFETY: Null, or a session, which is never freed.
    let session = unsafe { CURRENT.load(SeqCst).as_ref() };
    session.map_or([None; 2], |session| {
        [Precision::Single, Precision::Double].map(|precision| session.knowledge.model(precision))
    })
}

impl Session {
    /// Keeps the contexts open until [`leave`](Self::leave); false if they are closed or about to be, by
    /// whomever.
    fn enter(&self) -> bool {
        self.inside.fetch_add(1, SeqCst);
        if !self.retired.load(SeqCst) {
            if self.contexts.iter().all(Context::is_open) {
                return true;
            }
            self.retire();
        }
        self.leave();
        false
    }

    fn leave(&self) {
        if self.inside.fetch_sub(1, SeqCst) == 1 && self.retired.load(SeqCst) {
            self.close();
        }
    }

    /// Lets no call in any more.
    fn retire(&self) {
        self.retired.store(true, SeqCst);
        let mine = std::ptr::from_ref(self).cast_mut();
        let _ = CURRENT.compare_exchange(mine, std::ptr::null_mut(), SeqCst, SeqCst);
        if self.inside.load(SeqCst) == 0 {
            self.close();
        }
    }

    fn close(&self) {
        if self.closed.swap(true, SeqCst) {
            return;
        }
        // SAFETY:
        // - `closed` was not set, so this happens once.
        // - `retired` is set and nobody is inside: who comes in later sees it and touches no context.
        drop(unsafe { std::ptr::read(&*self.contexts) });
    }

    /// Gives the device up if a failure says that it is of no use any more.
    fn judge(&self, error: &Error) -> Reason {
        let reason = Reason::of(error);
        // Commands that are aborted by a reset leave a device that works.
        let aborted = error.failure().is_some();
        if reason == Reason::Lost && !aborted {
            RETRY_AT.store(now_ms() + RETRY_MS, SeqCst);
            self.retire();
        }
        reason
    }

    /// Waits until the device has let go of a command's memory.
    fn collect(&self, context: &Context, id: CommandId) -> Result<(), Reason> {
        match context.wait(id, None) {
            Ok(_) => Ok(()),
            Err(error) => {
                let given_up = matches!(error.errno(), libc::ENODEV | libc::EIO);
                if error.failure().is_none() && !given_up {
                    // The driver's contract excludes it; the device might go on writing.
                    message::abort(format_args!(
                        "a command in flight cannot be collected ({error})"
                    ));
                }
                Err(self.judge(&error))
            }
        }
    }
}

impl Device for Session {
    fn engines(&self) -> usize {
        self.contexts.len()
    }

    fn fetch(&self, ranges: &[PageRange]) {
        let Some(context) = self.contexts.first().filter(|_| self.moving) else {
            return;
        };
        for part in parts(ranges) {
            // What cannot move, or is not there, the command finds out about.
            let _ = context.prefetch(part);
        }
    }

    fn find(&self, ranges: &[PageRange]) -> Found {
        let Some(context) = self.contexts.first() else {
            return Found::default();
        };
        // What is not known has to move.
        let known = parts(ranges).filter_map(|part| context.residency(part).ok());
        known.fold(Found::default(), |found, pages| Found {
            in_place: found.in_place + (pages.device + pages.file) as f64,
            to_come_back: found.to_come_back
                + if self.faulting {
                    pages.device as f64
                } else {
                    0.0
                },
        })
    }

    fn run<T: Real>(&self, work: Vec<Work<'_, T>>) -> Vec<Result<(), Reason>> {
        // All of them before any is submitted: what panics here leaves nothing in flight.
        let commands: Vec<_> = work.iter().map(Work::command).collect();
        let submitted: Vec<_> = commands
            .into_iter()
            .zip(self.contexts.iter().cycle())
            .map(|(command, context)| {
                // SAFETY: The command reads and writes what the views of its work do. Those are this call's, and
                // say that nobody else writes to what is read, or accesses what is written, until the command
                // is collected below, which ends the process if it fails.
                let id = unsafe { context.submit(command) };
                id.map(|id| (context, id))
                    .map_err(|error| self.judge(&error))
            })
            .collect();
        submitted
            .into_iter()
            .map(|command| command.and_then(|(context, id)| self.collect(context, id)))
            .collect()
    }
}

/// Ranges in parts as long as the driver takes at once.
fn parts(ranges: &[PageRange]) -> impl Iterator<Item = PageRange> + '_ {
    ranges.iter().flat_map(|range| {
        let starts = (0..range.len).step_by(MAX_RANGE_BYTES as usize);
        starts.map(move |start| {
            PageRange::new(range.addr + start, (range.len - start).min(MAX_RANGE_BYTES))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> &'static Session {
        Box::leak(Box::new(Session {
            contexts: ManuallyDrop::new(Vec::new()),
            moving: false,
            faulting: false,
            pool: Pool::new(),
            knowledge: Knowledge::new(),
            inside: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }))
    }

    #[test]
    fn contexts_are_closed_when_the_last_call_leaves() {
        let session = session();
        assert!(session.enter() && session.enter());
        session.retire();
        assert!(!session.enter());
        session.leave();
        assert!(!session.closed.load(SeqCst));
        session.leave();
        assert!(session.closed.load(SeqCst));
    }

    #[test]
    fn session_without_calls_is_closed_at_once() {
        let session = session();
        session.retire();
        assert!(session.closed.load(SeqCst));
        assert!(!session.enter());
    }
}

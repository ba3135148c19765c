// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! This program's own standard input, output and error, while a job is connected to them.
//!
//! Others share them, so nothing is known of them: whatever `poll(2)` says, a terminal that is
//! stopped, a disk, or a pipe into which another program writes too may hold up a call. Each direction
//! therefore has a thread that makes the calls and a bounded buffer; the event loop never waits for
//! either. A thread that is held up for good ends with the program.
//!
//! Lock: `Output::queue` is held for moments only, by either side, and never around a call that waits
//! for anything but its own condition.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use coax_program::output::OutputError;
use coax_program::stream::Waiting;

use crate::frames::Kind;

/// Output that waits for its reader, beyond which the guest has to wait.
const OUTPUT_BYTES: usize = 1 << 20;
/// Most input read at once: one frame.
const INPUT_BYTES: usize = 64 << 10;

/// Wakes the event loop.
#[derive(Clone, Debug)]
pub struct Waker(Arc<UnixStream>);

impl Waker {
    /// Writes to a stream that does not block and that the loop reads.
    pub fn new(stream: UnixStream) -> Self {
        Waker(Arc::new(stream))
    }

    /// Wakes it, or has it wake once more.
    pub fn wake(&self) {
        // One that is full wakes it anyway.
        let _ = (&*self.0).write(&[0]);
    }
}

/// Standard output and error, in the order in which the job's output came.
#[derive(Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something in the queue, or nothing will come any more.
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<(Kind, Vec<u8>)>,
    /// In `pieces` and in the thread's hand.
    bytes: usize,
    /// The loop waits for a change.
    awaited: bool,
    error: Option<OutputError>,
    failed: bool,
    /// Nothing will come any more.
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    /// Starts to write to these two.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn start(stdout: OwnedFd, stderr: OwnedFd, waker: Waker) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            filled: Condvar::new(),
        });
        let output = Output {
            shared: Arc::clone(&shared),
        };
        spawn("output", move || write(&shared, &stdout, &stderr, &waker))?;
        Ok(output)
    }

    /// Has a piece of output written, in its turn.
    pub fn push(&self, kind: Kind, bytes: Vec<u8>) {
        let mut queue = self.shared.queue();
        if !queue.failed {
            queue.bytes += bytes.len();
            queue.pieces.push_back((kind, bytes));
            self.shared.filled.notify_one();
        }
    }

    /// Whether there is room for more; if not, the loop is woken when there is.
    pub fn has_room(&self) -> bool {
        self.is_below(OUTPUT_BYTES)
    }

    /// Whether all is written; if not, the loop is woken when that may have changed.
    pub fn is_written(&self) -> bool {
        self.is_below(1)
    }

    fn is_below(&self, bytes: usize) -> bool {
        let mut queue = self.shared.queue();
        let below = queue.bytes < bytes;
        queue.awaited |= !below;
        below
    }

    /// Why output is lost, once.
    pub fn take_error(&self) -> Option<OutputError> {
        self.shared.queue().error.take()
    }
}

impl Drop for Output {
    /// What is not written by now may still be, as long as the program lives.
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.filled.notify_one();
    }
}

/// Writes pieces until one cannot be written, or none will come.
fn write(shared: &Shared, stdout: &OwnedFd, stderr: &OwnedFd, waker: &Waker) {
    loop {
        let mut queue = shared.queue();
        let (kind, piece) = loop {
            match queue.pieces.pop_front() {
                Some(piece) => break piece,
                None if queue.closed => return,
                None => {
                    let waited = shared.filled.wait(queue);
                    queue = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(queue);
        let result = match kind {
            Kind::Stderr => Waiting(stderr)
                .write_all(&piece)
                .map_err(OutputError::stderr),
            _ => Waiting(stdout)
                .write_all(&piece)
                .map_err(OutputError::stdout),
        };
        let mut queue = shared.queue();
        queue.bytes -= piece.len();
        if let Err(error) = result {
            queue.pieces.clear();
            queue.bytes = 0;
            queue.failed = true;
            queue.error = Some(error);
            waker.wake();
            return;
        }
        if std::mem::take(&mut queue.awaited) {
            waker.wake();
        }
    }
}

/// What standard input brings.
#[derive(Debug)]
pub enum Input {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// Its end.
    End,
    /// An end before its end.
    Failed(io::Error),
}

/// Starts to read; one piece waits to be taken, and the loop is woken for each.
///
/// # Errors
///
/// Those of starting a thread.
pub fn read_input(stdin: OwnedFd, waker: Waker) -> io::Result<Receiver<Input>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn("input", move || {
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            let input = match Waiting(&stdin).read(&mut buffer) {
                Ok(0) => Input::End,
                Ok(length) => Input::Bytes(buffer.get(..length).unwrap_or_default().to_vec()),
                Err(error) => Input::Failed(error),
            };
            let goes_on = matches!(input, Input::Bytes(_));
            if sender.send(input).is_err() {
                return;
            }
            waker.wake();
            if !goes_on {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// A descriptor of one's own for the same open file.
///
/// # Errors
///
/// Those of `dup(2)`.
pub fn own(shared: impl AsFd) -> io::Result<OwnedFd> {
    shared.as_fd().try_clone_to_owned()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.into()).spawn(body);
    thread.map(drop)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What flows between a VM and this program: the event loop's one place to wait.
//!
//! One thread waits here, for the VM's console and channel, for this program's own ends
//! ([`super::ends`]), for its children's ends and the terminal's size, and no longer than it is told. It
//! waits for nobody else: output that its reader does not take fills a bounded buffer, then the socket's,
//! and then the guest waits. So time limits hold, and memory stays, whatever a job prints and whoever
//! reads it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use signal_hook::SigId;

use coax_program::output::OutputError;

use super::channel::{Channel, Received};
use super::ends::{self, Input, Output, Waker};
use super::lines::Lines;
use crate::frames::{Frame, Kind};

/// Most read of the console at once.
const CONSOLE_PIECE_BYTES: usize = 16 << 10;

/// What happens to a running VM.
#[derive(Debug)]
pub enum Event {
    /// The guest wrote a line to its console.
    Console(String),
    /// The console is closed: QEMU has ended.
    ConsoleEnd,
    /// The guest sent a frame that was not passed on to this program's own output.
    Frame(Frame),
    /// No more frames will come, for this reason if it is not the machine's end.
    ChannelEnd(Option<io::Error>),
    /// Bytes came on standard input that are for the job, unless one of them is for this program.
    Input(Vec<u8>),
    /// Standard input ended before its end.
    InputError(io::Error),
    /// Standard output or error takes no more.
    OutputError(OutputError),
    /// A child has ended, or the terminal has another size, or neither.
    Look,
}

/// The flow; it ends with its owner.
#[derive(Debug)]
pub struct Flow {
    console: Option<File>,
    lines: Lines,
    piece: Vec<u8>,
    channel: Channel,
    /// Where the output of a job goes that is not for the owner.
    output: Option<Output>,
    input: Option<Receiver<Input>>,
    woken: UnixStream,
    waker: Waker,
    signals: Vec<SigId>,
}

impl Flow {
    /// From a VM's console and whoever connects to `listener`.
    ///
    /// # Errors
    ///
    /// Those of making sockets and pipes that do not block, and of `sigaction(2)`.
    pub fn new(console: OwnedFd, listener: UnixListener) -> io::Result<Self> {
        // Its other end is another open file.
        fcntl(&console, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let mut flow = Flow {
            console: Some(File::from(console)),
            lines: Lines::default(),
            piece: vec![0; CONSOLE_PIECE_BYTES],
            channel: Channel::new(listener)?,
            output: None,
            input: None,
            woken,
            waker: Waker::new(waker.try_clone()?),
            signals: Vec::new(),
        };
        for signal in [Signal::SIGCHLD, Signal::SIGWINCH] {
            let id = signal_hook::low_level::pipe::register(signal as i32, waker.try_clone()?)?;
            flow.signals.push(id);
        }
        Ok(flow)
    }

    /// Has the job's output written to these two instead of handed over as events.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn write_output(&mut self, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<()> {
        self.output = Some(Output::start(stdout, stderr, self.waker.clone())?);
        Ok(())
    }

    /// Reads the job's input from here.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn read_input(&mut self, stdin: OwnedFd) -> io::Result<()> {
        self.input = Some(ends::read_input(stdin, self.waker.clone())?);
        Ok(())
    }

    /// Sends a frame to the guest.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.channel.send(kind, payload);
    }

    /// Whether the VM has closed console and channel.
    pub fn has_ended(&self) -> bool {
        self.console.is_none() && self.channel.has_ended()
    }

    /// Whether all output is where it is to go.
    pub fn is_written(&self) -> bool {
        self.output.as_ref().is_none_or(Output::is_written)
    }

    /// Waits for something to happen, at most so long, and returns all that did.
    ///
    /// # Errors
    ///
    /// Those of `poll(2)`.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<Event>> {
        let reading = self.output.as_ref().is_none_or(Output::has_room);
        let console = self.console.as_ref().map(AsFd::as_fd);
        let mut waited: Vec<PollFd> = [
            Some((self.woken.as_fd(), PollFlags::POLLIN)),
            console.map(|console| (console, PollFlags::POLLIN)),
            self.channel.interest(reading),
        ]
        .into_iter()
        .flatten()
        .map(|(fd, flags)| PollFd::new(fd, flags))
        .collect();
        match poll(&mut waited, timeout(limit)) {
            Ok(_) | Err(Errno::EINTR) => Ok(self.take(reading)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes a piece of each source that has one; output that there is no room for is left to the guest.
    fn take(&mut self, reading: bool) -> Vec<Event> {
        let mut events = Vec::new();
        if self.was_woken() {
            events.push(Event::Look);
        }
        self.take_console(&mut events);
        self.channel.transmit();
        if reading && !self.channel.has_ended() {
            self.take_frames(&mut events);
        }
        self.take_input(&mut events);
        let error = self.output.as_ref().and_then(Output::take_error);
        events.extend(error.map(Event::OutputError));
        events
    }

    fn take_console(&mut self, events: &mut Vec<Event>) {
        let Some(console) = &mut self.console else {
            return;
        };
        match console.read(&mut self.piece) {
            Ok(length @ 1..) => {
                let piece = self.piece.get(..length).unwrap_or_default();
                events.extend(self.lines.add(piece).into_iter().map(Event::Console));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                events.extend(self.lines.end().map(Event::Console));
                events.push(Event::ConsoleEnd);
                self.console = None;
            }
        }
    }

    fn take_frames(&mut self, events: &mut Vec<Event>) {
        let Received { frames, end } = match self.console {
            Some(_) => self.channel.receive(),
            None => self.channel.receive_last(),
        };
        for frame in frames {
            match (frame.kind, &self.output) {
                (Kind::Stdout | Kind::Stderr, Some(output)) => {
                    output.push(frame.kind, frame.payload);
                }
                _ => events.push(Event::Frame(frame)),
            }
        }
        events.extend(end.map(Event::ChannelEnd));
    }

    /// A piece of input when the guest has taken what it was sent: the thread's next one wakes this loop,
    /// or the guest that takes something.
    fn take_input(&mut self, events: &mut Vec<Event>) {
        if !self.channel.has_room() {
            return;
        }
        let Some(Ok(input)) = self.input.as_ref().map(Receiver::try_recv) else {
            return;
        };
        if let Input::Bytes(bytes) = input {
            return events.push(Event::Input(bytes));
        }
        self.input = None;
        self.channel.send(Kind::StdinEnd, b"");
        if let Input::Failed(error) = input {
            events.push(Event::InputError(error));
        }
    }

    fn was_woken(&mut self) -> bool {
        let mut bytes = [0; 64];
        let mut woken = false;
        while matches!(self.woken.read(&mut bytes), Ok(1..)) {
            woken = true;
        }
        woken
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for id in self.signals.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

fn timeout(limit: Option<Duration>) -> PollTimeout {
    limit.map_or(PollTimeout::NONE, |limit| {
        // Rounded up: a limit that is not quite over would be waited for in a busy loop.
        let millis = limit.as_millis().saturating_add(1);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    })
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's end of the port with the frames; no call waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::PollFlags;

use crate::frames::{write_frame, Decoder, Frame, Kind};

/// Bytes on their way to the guest beyond which nothing more is taken in for it: two frames of input.
const OUTGOING_BYTES: usize = 128 << 10;
/// Most read at once.
const PIECE_BYTES: usize = 64 << 10;

/// The connection to the guest's port, from before there is one until after its end.
#[derive(Debug)]
pub struct Channel {
    state: State,
    decoder: Decoder,
    /// Frames for the guest, of which so many bytes are sent.
    outgoing: Vec<u8>,
    sent: usize,
    piece: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// QEMU has not connected yet.
    Listening(UnixListener),
    Connected(UnixStream),
    Ended,
}

/// What a look at the channel brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Frames, in their order.
    pub frames: Vec<Frame>,
    /// No more will come, for this reason if it is not the machine's end.
    pub end: Option<Option<io::Error>>,
}

impl Channel {
    /// A channel to the first who connects.
    ///
    /// # Errors
    ///
    /// Those of making the socket one that does not block.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Channel {
            state: State::Listening(listener),
            decoder: Decoder::default(),
            outgoing: Vec::new(),
            sent: 0,
            piece: vec![0; PIECE_BYTES],
        })
    }

    /// What to wait for, and where; nothing if there is nothing to wait for. A descriptor that is
    /// waited for in vain would report its peer's end again and again.
    pub fn interest(&self, reading: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, reading);
        let fd = match &self.state {
            State::Listening(listener) => listener.as_fd(),
            State::Connected(stream) => {
                flags.set(PollFlags::POLLOUT, !self.outgoing.is_empty());
                stream.as_fd()
            }
            State::Ended => return None,
        };
        (!flags.is_empty()).then_some((fd, flags))
    }

    /// Reads once, if there is something to read.
    pub fn receive(&mut self) -> Received {
        let mut received = Received::default();
        received.end = match self.try_receive(&mut received.frames) {
            Ok(true) => None,
            Ok(false) => Some(self.decoder.end().err()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => None,
                // How the kernel calls it when QEMU ends with unread input.
                io::ErrorKind::ConnectionReset => Some(None),
                _ => Some(Some(error)),
            },
        };
        if received.end.is_some() {
            self.end();
        }
        received
    }

    /// False at the end of the stream.
    fn try_receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<bool> {
        if let State::Listening(listener) = &self.state {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            self.state = State::Connected(stream);
        }
        let State::Connected(stream) = &mut self.state else {
            return Ok(true);
        };
        let length = stream.read(&mut self.piece)?;
        self.decoder
            .add(self.piece.get(..length).unwrap_or_default());
        while let Some(frame) = self.decoder.next_frame()? {
            frames.push(frame);
        }
        Ok(length > 0)
    }

    /// As [`Channel::receive`], when QEMU has ended: who has not connected by now never will.
    pub fn receive_last(&mut self) -> Received {
        let mut received = self.receive();
        if matches!(self.state, State::Listening(_)) {
            self.end();
            received.end = Some(None);
        }
        received
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.outgoing.clear();
        self.sent = 0;
    }

    /// Whether no more frames will come.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether there is room for another frame of input to the guest.
    pub fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < OUTGOING_BYTES
    }

    /// Has a frame sent. What is for a guest that has gone is lost, which is seen by what comes from it.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        if matches!(self.state, State::Connected(_)) {
            // A vector takes everything.
            let _ = write_frame(&mut self.outgoing, kind, payload);
            self.transmit();
        }
    }

    /// Sends what the guest takes now.
    pub fn transmit(&mut self) {
        let State::Connected(stream) = &mut self.state else {
            return;
        };
        while let Some(rest) = self.outgoing.get(self.sent..) {
            if rest.is_empty() {
                break;
            }
            match stream.write(rest) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The other direction tells why.
                Err(_) => break,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
    }
}

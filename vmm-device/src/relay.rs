// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Passes the messages between the front end and the vhost-user daemon.
//!
//! The daemon shuts its socket down as soon as a message fails, while the engines still run. The
//! front end must not see that before they are idle, so its own connection is another socket,
//! which `server` closes last. Messages are passed whole, with their descriptors, one at a time
//! in each direction: the daemon expects the body of a message to be there when it has read the
//! head. What they say is the daemon's business.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use vhost::vhost_user::Listener;

/// Bytes of a message's head: request, flags, and bytes of the body; 32 bits each.
const HEAD: usize = 12;
/// Largest body of the protocol. The head of a larger message goes without, and is refused.
const MAX_BODY: usize = 4096;
/// Most descriptors of a message: more than any message of the protocol has.
const MAX_FDS: usize = 64;

/// Why the conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The program was asked to end.
    Asked,
    /// The front end disconnected.
    FrontEnd,
    /// The daemon closed its socket.
    Daemon,
}

/// Where the program is asked to end: a byte does. An end of file means that nobody can ask any
/// more.
#[derive(Debug)]
pub struct Stop(Option<UnixStream>);

impl Stop {
    /// Listens to a socket.
    pub fn new(socket: UnixStream) -> Self {
        Self(Some(socket))
    }

    /// Waits until one of `wanted` is ready and tells which are; `None` if asked to end.
    pub fn wait<const N: usize>(
        &mut self,
        wanted: [(BorrowedFd<'_>, PollFlags); N],
    ) -> io::Result<Option<[PollFlags; N]>> {
        loop {
            let stop = self.0.as_ref().map(|it| PollFd::new(it, PollFlags::IN));
            let mut fds: Vec<PollFd<'_>> = wanted
                .iter()
                .map(|&(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
                .chain(stop)
                .collect();
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            match ready.get(N) {
                Some(stop) if !stop.is_empty() => {
                    if matches!(self.0.as_mut().map(|it| it.read(&mut [0])), Some(Ok(1))) {
                        return Ok(None);
                    }
                    self.0 = None;
                }
                _ => return Ok(Some(std::array::from_fn(|n| ready[n]))),
            }
        }
    }
}

/// A connection to the daemon, made by having it accept one.
pub fn connect_daemon<E: From<io::Error>>(
    start: impl FnOnce(&mut Listener) -> Result<(), E>,
) -> Result<UnixStream, E> {
    // A name that needs no file system and lasts as long as this function.
    let random = || RandomState::new().build_hasher().finish();
    let name = format!("coax-{:016x}{:016x}", random(), random());
    let name = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&name)?;
    let ours = UnixStream::connect_addr(&name)?;
    // Anybody could have connected meanwhile: then two have.
    let others = listener.try_clone()?;
    start(&mut Listener::from(listener))?;
    others.set_nonblocking(true)?;
    match others.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ours),
        _ => Err(io::Error::other("somebody connects to the program's own socket").into()),
    }
}

/// Passes messages until one side ends or `stop` says so. Whoever else connects meanwhile is
/// handed to `refuse`.
pub fn run(
    front_end: &UnixStream,
    daemon: &UnixStream,
    listener: Option<&UnixListener>,
    stop: &mut Stop,
    refuse: impl Fn(UnixStream),
) -> io::Result<End> {
    let mut up = Direction::default();
    let mut down = Direction::default();
    loop {
        let wanted = |from: &Direction, to: &Direction| {
            let read = if from.complete() {
                PollFlags::empty()
            } else {
                PollFlags::IN
            };
            let write = if to.complete() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            read | write
        };
        // Without a listener its place is taken by a socket of which nothing is wanted.
        let (third, of_third) = match listener {
            Some(listener) => (listener.as_fd(), PollFlags::IN),
            None => (daemon.as_fd(), PollFlags::empty()),
        };
        let ready = stop.wait([
            (front_end.as_fd(), wanted(&up, &down)),
            (daemon.as_fd(), wanted(&down, &up)),
            (third, of_third),
        ])?;
        let Some([of_front_end, of_daemon, of_listener]) = ready else {
            return Ok(End::Asked);
        };
        if let Some(listener) = listener.filter(|_| of_listener.contains(PollFlags::IN)) {
            refuse(listener.accept()?.0);
        }
        if !up.pass(front_end, daemon, of_front_end, of_daemon)? {
            return Ok(End::FrontEnd);
        }
        if !down.pass(daemon, front_end, of_daemon, of_front_end)? {
            return Ok(End::Daemon);
        }
    }
}

/// The message that is on its way in one direction.
#[derive(Debug, Default)]
struct Direction {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    sent: usize,
}

impl Direction {
    /// Bytes that the message lacks.
    fn missing(&self) -> usize {
        let body = match self.bytes.get(HEAD - 4..HEAD) {
            Some(size) => u32::from_ne_bytes([size[0], size[1], size[2], size[3]]) as usize,
            None => return HEAD - self.bytes.len(),
        };
        // What is too large goes without its body, and ends the conversation.
        let body = if body > MAX_BODY { 0 } else { body };
        HEAD + body - self.bytes.len()
    }

    fn complete(&self) -> bool {
        self.missing() == 0
    }

    /// Goes on as far as the sockets are ready; false if there will be nothing more to pass.
    fn pass(
        &mut self,
        from: &UnixStream,
        to: &UnixStream,
        of_from: PollFlags,
        of_to: PollFlags,
    ) -> io::Result<bool> {
        if of_from.contains(PollFlags::IN) && !self.complete() {
            return self.receive(from);
        }
        if of_to.contains(PollFlags::OUT) && self.complete() {
            return self.send(to);
        }
        Ok(!of_from.intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// False at the end of file.
    fn receive(&mut self, from: &UnixStream) -> io::Result<bool> {
        let mut bytes = vec![0; self.missing()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let message = match recvmsg(from, &mut iov, &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            Err(Errno::CONNRESET) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        for received in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = received {
                self.fds.extend(fds);
            }
        }
        // A peer that passes more descriptors than any message has.
        if message.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > MAX_FDS {
            return Ok(false);
        }
        self.bytes.extend_from_slice(&bytes[..message.bytes]);
        Ok(message.bytes > 0)
    }

    /// False if the receiver is gone.
    fn send(&mut self, to: &UnixStream) -> io::Result<bool> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let iov = [IoSlice::new(&self.bytes[self.sent..])];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match sendmsg(to, &iov, &mut control, flags) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            // Why is told by what can be read from it, or by its end.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        // The descriptors went with the first byte.
        self.fds.clear();
        self.sent += sent;
        if self.sent == self.bytes.len() {
            *self = Self::default();
        }
        Ok(true)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that takes what comes from QEMU.
#![forbid(unsafe_code)]

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use coax_abi::wire::{PAGE_SIZE, RESPONSE_INVALID, RESPONSE_SUCCESS};
use rustix::event::{poll, PollFd, PollFlags};

use super::requests::{Effect, Pasid};
use super::wire::{self, nonsense, Message};
use crate::device::Device;
use crate::mmu::atc::Translation;
use crate::mmu::ContextId;
use crate::resolve::ResponseCode;
use crate::socket::Socket;
use crate::sync::{lock, Arc};

/// How long a message may take to be complete, or to be taken by QEMU.
const MESSAGE_LIMIT: Duration = Duration::from_secs(5);

/// PCIe translation while it is served; ends with this value.
#[derive(Debug)]
pub struct Served {
    device: Arc<Device>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves one connection of QEMU's.
    pub fn begin(device: &Arc<Device>, socket: Socket) -> io::Result<Self> {
        let theirs = Arc::clone(device);
        let thread = thread::Builder::new()
            .name("coax-pcie".into())
            .spawn(move || run(&theirs, socket))?;
        Ok(Self {
            device: Arc::clone(device),
            thread: Some(thread),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let pcie = &self.device.machine.outside.service.pcie;
        lock(&pcie.state).stopping = true;
        pcie.wake();
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process.
            let _ = thread.join();
        }
    }
}

fn run(device: &Device, socket: Socket) {
    let pcie = &device.machine.outside.service.pcie;
    let connected = match socket {
        Socket::Connected(stream) => Ok(Some(stream)),
        Socket::Listening { listener, place } => {
            let accepted = wait(device, &listener).and_then(|come| match come {
                true => listener.accept().map(|(stream, _)| Some(stream)),
                false => Ok(None),
            });
            drop(place);
            accepted
        }
    };
    let ended = connected.and_then(|stream| match stream {
        Some(stream) => converse(device, stream),
        None => Ok(()),
    });
    match ended {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            log::info!("PCIe translation: QEMU disconnected");
        }
        Err(error) => log::error!("PCIe translation: {error}; the connection is closed"),
    }
    let (effects, contexts) = {
        let mut state = lock(&pcie.state);
        state.connected = false;
        let effects = state.forget_uses().1;
        let contexts: Vec<ContextId> = state.contexts.keys().copied().collect();
        (effects, contexts)
    };
    pcie.changed.notify_all();
    perform(device, effects);
    // From now on nobody says what is not translated any more.
    for context in contexts {
        device.close(context);
    }
    // QEMU sees the end when no translation is used any more.
    if let Some(stream) = lock(&pcie.socket).take() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    answer_ended(device);
}

/// Waits until there is something to read; false if the thread is to end.
fn wait(device: &Device, from: &impl AsFd) -> io::Result<bool> {
    let pcie = &device.machine.outside.service.pcie;
    loop {
        let mut fds = [
            PollFd::new(from, PollFlags::IN),
            PollFd::new(&pcie.wake, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (readable, woken) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if woken {
            // Nothing to read means that another has taken it.
            let _ = rustix::io::read(&pcie.wake, &mut [0; 8]);
            if lock(&pcie.state).stopping {
                return Ok(false);
            }
            answer_ended(device);
        }
        if readable {
            return Ok(true);
        }
    }
}

fn answer_ended(device: &Device) {
    let ended = std::mem::take(&mut lock(&device.machine.outside.service.pcie.state).ended);
    perform(device, ended);
}

/// Serves a connection until it ends; without error if the thread is to end.
fn converse(device: &Device, stream: UnixStream) -> io::Result<()> {
    let pcie = &device.machine.outside.service.pcie;
    stream.set_read_timeout(Some(MESSAGE_LIMIT))?;
    stream.set_write_timeout(Some(MESSAGE_LIMIT))?;
    *lock(&pcie.socket) = Some(stream.try_clone()?);
    pcie.send(&Message::hello());
    while wait(device, &stream)? {
        let (message, translations) = wire::receive(&stream)?;
        log::trace!("{message:x?} {translations:x?}");
        if lock(&pcie.state).connected {
            take(device, &message, translations)?;
        } else if message == Message::hello() {
            lock(&pcie.state).connected = true;
            log::info!("PCIe translation: QEMU connected");
        } else {
            return Err(nonsense("QEMU speaks another version of the messages"));
        }
    }
    Ok(())
}

fn take(device: &Device, message: &Message, entries: Vec<Translation>) -> io::Result<()> {
    let pcie = &device.machine.outside.service.pcie;
    let tag = message.tag.get();
    let pasid = Pasid {
        number: message.pasid.get(),
        opening: message.opening.get(),
    };
    let mut effects = Vec::new();
    match message.kind.get() {
        wire::INVALIDATE => invalidate(device, message, pasid)?,
        wire::COMPLETION => {
            // What comes late finds no request.
            let mut state = lock(&pcie.state);
            state.requests.completed(tag, pasid, entries, &mut effects);
        }
        wire::PAGE_RESPONSE => {
            let code = match message.code.get() {
                RESPONSE_SUCCESS => ResponseCode::Success,
                RESPONSE_INVALID => ResponseCode::InvalidRequest,
                _ => ResponseCode::ResponseFailure,
            };
            let mut state = lock(&pcie.state);
            state.requests.responded(tag, pasid, code, &mut effects);
        }
        wire::OPENED => {
            let mut state = lock(&pcie.state);
            let opened = message.code.get() == RESPONSE_SUCCESS;
            if opened {
                state.requests.set_allocation(message.last.get());
            }
            state
                .asked
                .entry(tag)
                .and_modify(|answer| *answer = Some(opened));
            pcie.changed.notify_all();
        }
        wire::CLOSED => {
            let mut state = lock(&pcie.state);
            state.requests.end(|other| other == pasid, &mut effects);
            state
                .asked
                .entry(tag)
                .and_modify(|answer| *answer = Some(true));
            pcie.changed.notify_all();
        }
        _ => return Err(nonsense("QEMU sent a message of an unknown kind")),
    }
    perform(device, effects);
    if std::mem::take(&mut lock(&pcie.state).full) {
        device.machine.send();
    }
    Ok(())
}

/// Drops a range in all contexts of a PASID, and says so.
fn invalidate(device: &Device, message: &Message, pasid: Pasid) -> io::Result<()> {
    let began = Instant::now();
    let (machine, shell) = (&device.machine, &device.machine.outside);
    let pcie = &shell.service.pcie;
    let (first, last) = (
        message.addr.get() / PAGE_SIZE,
        message.last.get() / PAGE_SIZE,
    );
    let npages = last
        .checked_sub(first)
        .ok_or_else(|| nonsense("QEMU invalidates a range that ends before it begins"))?
        + 1;
    let contexts: Vec<ContextId> = {
        let state = lock(&pcie.state);
        let used = state.uses.get(&pasid.number);
        let used = used.filter(|used| used.opening == pasid.opening);
        used.map(|used| used.contexts.clone()).unwrap_or_default()
    };
    for context in contexts {
        machine.invalidate(context, first, npages);
    }
    pcie.send(&Message {
        kind: wire::INVALIDATED.into(),
        tag: message.tag,
        pasid: message.pasid,
        opening: message.opening,
        ..Message::default()
    });
    shell.stats.invalidations.bump();
    shell.stats.invalidation_times.record(began.elapsed());
    Ok(())
}

fn perform(device: &Device, effects: Vec<Effect>) {
    let (machine, shell) = (&device.machine, &device.machine.outside);
    for effect in effects {
        match effect {
            Effect::Send(message) => shell.service.pcie.send(&message),
            Effect::Answer {
                context,
                tag,
                code,
                entries,
            } => {
                if machine.answered(context, tag, code, &entries) {
                    shell.stats.count_response(code);
                }
            }
        }
    }
}

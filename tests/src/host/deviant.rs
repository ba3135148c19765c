// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A back end that deviates from the specification when a command says so: see [`Deviation`].
//!
//! It is this program, started under another name, so that it is built and packed with it.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result};
use coax_abi::wire::{
    ControlRequest, DeviceRequest, InvalidateReply, TranslationMessage, CONTROL_CONTEXT_CLOSE,
    CONTROL_CONTEXT_OPEN, MSG_INVALIDATE, QUEUE_CONTROL, QUEUE_COPY, QUEUE_TRANSLATION,
    STATUS_BAD_ARGUMENT,
};
use coax_images::temporary::TemporaryFolder;
use vhost_device_coax::args::Args;
use vhost_device_coax::deviations::Deviations;
use vhost_device_coax::fail_stop;
use vhost_device_coax::server::serve_deviating;
use vhost_device_coax::socket::Socket;
use zerocopy::{FromBytes, IntoBytes};

use crate::deviation::Deviation;

/// The name under which this program is the back end.
const NAME: &str = "coax-deviant-device";

/// What is done wrong at the next occasion.
static NEXT: Mutex<Option<Deviation>> = Mutex::new(None);

/// The back end, if this program was started as such.
pub fn run_if_meant() -> Option<ExitCode> {
    let program = std::env::args_os().next()?;
    let meant = Path::new(&program).file_name() == Some(OsStr::new(NAME));
    meant.then(|| match coax_program::parse(NAME) {
        Ok(args) => coax_program::finish(NAME, serve(&args).map(|()| ExitCode::SUCCESS)),
        Err(status) => status,
    })
}

/// The name under which this program is the back end, in `folder`.
///
/// # Errors
///
/// It cannot be made.
pub fn program(folder: &TemporaryFolder) -> Result<PathBuf> {
    let path = folder.path().join(NAME);
    let this = std::env::current_exe().context("Where this program is")?;
    std::os::unix::fs::symlink(this, &path)
        .with_context(|| format!("Cannot make {}", path.display()))?;
    Ok(path)
}

/// Serves the front end that connects to the socket on standard input.
fn serve(args: &Args) -> Result<()> {
    fail_stop::end_process_on_panic();
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = Socket::adopt(socket.context("Cannot copy a descriptor")?)?;
    // Nobody asks it to end: it ends with its front end.
    let (stop, _kept) = UnixStream::pair().context("Cannot make a socket pair")?;
    let deviations = Deviations { request, answer };
    Ok(serve_deviating(
        args.config(),
        deviations,
        socket,
        None,
        stop,
    )?)
}

fn request(request: &mut DeviceRequest) -> usize {
    let whole = size_of::<DeviceRequest>();
    let Some(deviation) = Deviation::at(request.va.get()) else {
        return whole;
    };
    match deviation {
        Deviation::NoPages => request.npages.set(0),
        Deviation::TooManyPages => {
            request.npages.set(513);
            request.around.set(513);
        }
        Deviation::MoreThanAround => {
            request.npages.set(2);
            request.around.set(1);
        }
        Deviation::InPage => request.va.set(request.va.get() + 8),
        Deviation::UnknownKind => request.kind.set(77),
        Deviation::NotOpen => request.context.set(u32::MAX),
        Deviation::OldGeneration => request.generation.set(request.generation.get() - 1),
        Deviation::ShortRequest => return whole - 1,
        // The rest is for an answer.
        _ => {
            if let Ok(mut next) = NEXT.lock() {
                *next = Some(deviation);
            }
        }
    }
    whole
}

fn answer(queue: u16, message: &[u8], answer: &mut Vec<u8>) {
    let Ok(mut next) = NEXT.lock() else {
        return;
    };
    let opcode = ControlRequest::read_from_prefix(message).map(|(request, _)| request.opcode.get());
    let kind = TranslationMessage::read_from_prefix(message).map(|(head, _)| head.kind.get());
    let control = |wanted| queue == QUEUE_CONTROL && opcode == Ok(wanted);
    let invalidates = queue == QUEUE_TRANSLATION && kind == Ok(MSG_INVALIDATE);
    let refused = InvalidateReply {
        status: STATUS_BAD_ARGUMENT.into(),
        reserved: 0.into(),
    };
    let wrong = match *next {
        Some(Deviation::NoGeneration) if control(CONTROL_CONTEXT_OPEN) => vec![0; answer.len()],
        Some(Deviation::NoAnswerToOpen) if control(CONTROL_CONTEXT_OPEN) => Vec::new(),
        Some(Deviation::NoAnswerToClose) if control(CONTROL_CONTEXT_CLOSE) => Vec::new(),
        // It is laid out like this one.
        Some(Deviation::RefusedClose) if control(CONTROL_CONTEXT_CLOSE) => {
            refused.as_bytes().to_vec()
        }
        Some(Deviation::NoAnswerToCopy) if queue == QUEUE_COPY => Vec::new(),
        Some(Deviation::NoAnswerToInvalidate) if invalidates => Vec::new(),
        Some(Deviation::RefusedInvalidate) if invalidates => refused.as_bytes().to_vec(),
        _ => return,
    };
    *answer = wrong;
    *next = None;
}

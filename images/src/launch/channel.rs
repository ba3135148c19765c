// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads that turn what comes from a VM into events, one queue for all.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ChildStdout;
use std::sync::mpsc::Sender;
use std::thread;

use super::terminal::ESCAPE;
use crate::frames::{read_frame, write_frame, Frame, Kind};

/// What happens to a running VM.
#[derive(Debug)]
pub enum Event {
    /// The guest wrote a line to its console.
    Console(String),
    /// The console is closed: QEMU has ended.
    ConsoleEnd,
    /// QEMU has connected the guest's port; frames to the guest go here.
    Connected(UnixStream),
    /// The guest sent a frame.
    Frame(Frame),
    /// No more frames will come, for this reason if it is not the machine's end.
    ChannelEnd(Option<io::Error>),
    /// The user typed the escape key.
    Escape,
}

/// Reads the console line by line.
///
/// # Errors
///
/// Those of starting a thread.
pub fn watch_console(console: ChildStdout, events: Sender<Event>) -> io::Result<()> {
    spawn("console", move || {
        let mut reader = BufReader::new(console);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if events.send(Event::Console(text)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::ConsoleEnd);
    })
}

/// Accepts QEMU's connection and reads frames.
///
/// # Errors
///
/// Those of starting a thread.
pub fn watch_frames(listener: UnixListener, events: Sender<Event>) -> io::Result<()> {
    spawn("frames", move || {
        let end = match read_frames(&listener, &events) {
            Ok(()) => None,
            // How the kernel calls it when QEMU ends with unread input.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => Some(error),
        };
        let _ = events.send(Event::ChannelEnd(end));
    })
}

fn read_frames(listener: &UnixListener, events: &Sender<Event>) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    if events.send(Event::Connected(stream.try_clone()?)).is_err() {
        return Ok(());
    }
    while let Some(frame) = read_frame(&mut stream)? {
        if events.send(Event::Frame(frame)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends standard input to the guest until it ends; with `escape`, until the escape key.
///
/// # Errors
///
/// Those of starting a thread.
pub fn forward_input(mut guest: UnixStream, escape: bool, events: Sender<Event>) -> io::Result<()> {
    spawn("input", move || {
        let mut input = io::stdin().lock();
        let mut buffer = [0; 4096];
        loop {
            let length = match input.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            let typed = buffer.get(..length).unwrap_or_default();
            if escape && typed.contains(&ESCAPE) {
                let _ = events.send(Event::Escape);
                return;
            }
            if write_frame(&mut guest, Kind::Stdin, typed).is_err() {
                return;
            }
        }
        let _ = write_frame(&mut guest, Kind::StdinEnd, b"");
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
}

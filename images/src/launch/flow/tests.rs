// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The flow with the ends of a VM that there is not.

use super::*;
use crate::frames::{read_frame, write_frame};
use crate::temporary::TemporaryFolder;

use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Instant;

use nix::unistd::pipe;

/// Longest wait for what must happen.
const LIMIT: Duration = Duration::from_secs(20);
/// What a flow may hold of a job's output: its own buffer, and sockets and pipes with theirs.
const HELD_BYTES: usize = 4 << 20;

/// A flow, and the VM's ends of it.
struct Fake {
    flow: Flow,
    guest: UnixStream,
    console: File,
    _folder: TemporaryFolder,
}

impl Fake {
    fn new() -> Self {
        let folder = TemporaryFolder::new().expect("a temporary folder");
        let listener = folder.listen("a.sock").expect("a socket");
        let (theirs, console) = pipe().expect("a pipe");
        Fake {
            flow: Flow::new(theirs, listener).expect("a flow"),
            guest: folder.connect("a.sock").expect("somebody listens"),
            console: console.into(),
            _folder: folder,
        }
    }

    /// Output goes to pipes, whose other ends these are.
    fn output(&mut self) -> (File, File) {
        let (stdout, out) = pipe().expect("a pipe");
        let (stderr, err) = pipe().expect("a pipe");
        self.flow.write_output(out, err).expect("a thread");
        (stdout.into(), stderr.into())
    }

    /// The first event that is wanted.
    fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it did not happen");
            let events = self.flow.wait(Some(left)).expect("it can be waited for");
            if let Some(found) = events.into_iter().find_map(&mut wanted) {
                return found;
            }
        }
    }

    /// Runs until the guest has gone and all is written.
    fn until_written(&mut self) {
        let end = Instant::now() + LIMIT;
        while !(self.flow.channel.has_ended() && self.flow.is_written()) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it was not written");
            self.flow.wait(Some(left)).expect("it can be waited for");
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 7).to_le_bytes()[0]).collect()
}

/// Sends frames as long as anybody takes them; the bytes of the last one may be missing.
fn fill(guest: &mut UnixStream, flow: &mut Flow) -> usize {
    guest.set_nonblocking(true).expect("it can be set");
    let mut frames = Vec::new();
    write_frame(&mut frames, Kind::Stdout, &pattern(32 << 10)).expect("a vector takes all");
    let mut sent = 0;
    let mut refused = 0;
    // The thread that writes takes a moment, in which nothing seems to move.
    while refused < 20 {
        match guest.write(&frames) {
            Ok(length) => {
                sent += length;
                refused = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                refused += 1;
            }
        }
        assert!(sent < 64 << 20, "{sent} bytes went into memory");
        flow.wait(Some(Duration::from_millis(5))).expect("a wait");
    }
    sent
}

#[test]
fn output_that_nobody_reads_holds_up_the_guest_and_no_one_else() {
    let mut fake = Fake::new();
    let (_stdout, _stderr) = fake.output();
    let sent = fill(&mut fake.guest, &mut fake.flow);
    assert!(sent < HELD_BYTES, "{sent} bytes went into memory");
    // A limit holds, and the console is heard.
    let begin = Instant::now();
    fake.flow
        .wait(Some(Duration::from_millis(50)))
        .expect("a wait");
    assert!(begin.elapsed() < LIMIT);
    writeln!(fake.console, "still here").expect("a pipe has room");
    let line = fake.until(|event| match event {
        Event::Console(line) => Some(line),
        _ => None,
    });
    assert_eq!(line, "still here");
}

#[test]
fn waiting_for_a_slow_reader_costs_no_time_of_the_processor() {
    let mut fake = Fake::new();
    let (_stdout, _stderr) = fake.output();
    fill(&mut fake.guest, &mut fake.flow);
    // QEMU has gone, which poll reports again and again to who asks.
    fake.guest
        .shutdown(std::net::Shutdown::Both)
        .expect("it is open");
    let time = Duration::from_millis(200);
    let begin = Instant::now();
    let mut waits = 0;
    while begin.elapsed() < time {
        let left = time.saturating_sub(begin.elapsed());
        fake.flow.wait(Some(left)).expect("a wait");
        waits += 1;
    }
    // Children of tests beside this one end, and each wakes it; a wait that does not wait comes back 100,000
    // times.
    assert!(waits < 1000, "{waits} waits in {time:?}");
}

#[test]
fn a_reader_that_goes_is_told() {
    let mut fake = Fake::new();
    let (stdout, _stderr) = fake.output();
    drop(stdout);
    write_frame(&mut fake.guest, Kind::Stdout, b"y\n").expect("it has room");
    let error = fake.until(|event| match event {
        Event::OutputError(error) => Some(error),
        _ => None,
    });
    assert_eq!(error.stream, "standard output");
    assert_eq!(error.source.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_full_disk_is_told() {
    let mut fake = Fake::new();
    let full = || {
        let full = File::options().write(true).open("/dev/full");
        OwnedFd::from(full.expect("every Linux has it"))
    };
    fake.flow.write_output(full(), full()).expect("a thread");
    write_frame(&mut fake.guest, Kind::Stderr, b"x").expect("it has room");
    let error = fake.until(|event| match event {
        Event::OutputError(error) => Some(error),
        _ => None,
    });
    assert_eq!(error.stream, "standard error");
    assert_eq!(error.source.raw_os_error(), Some(Errno::ENOSPC as i32));
}

#[test]
fn output_to_a_pipe_that_does_not_block_comes_whole_and_in_order() {
    let mut fake = Fake::new();
    let (reader, writer) = pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("it can be set");
    let again = writer.try_clone().expect("a descriptor");
    fake.flow.write_output(writer, again).expect("a thread");
    let data = pattern(2 << 20);
    let mut guest = fake.guest.try_clone().expect("a descriptor");
    let sent = data.clone();
    let sender = thread::spawn(move || {
        for (number, piece) in sent.chunks(10_000).enumerate() {
            let kind = [Kind::Stdout, Kind::Stderr][number % 2];
            write_frame(&mut guest, kind, piece).expect("it is read");
        }
        guest
            .shutdown(std::net::Shutdown::Both)
            .expect("it is open");
    });
    let receiver = thread::spawn(move || {
        let mut received = Vec::new();
        File::from(reader)
            .read_to_end(&mut received)
            .expect("it can be read");
        received
    });
    fake.until_written();
    sender.join().expect("no panic");
    drop(fake);
    let received = receiver.join().expect("no panic");
    assert!(received == data, "{} of {}", received.len(), data.len());
}

#[test]
fn input_from_a_pipe_that_does_not_block_comes_to_its_end() {
    let mut fake = Fake::new();
    let (reader, mut writer) = UnixStream::pair().expect("a pair");
    reader.set_nonblocking(true).expect("it can be set");
    fake.flow.read_input(reader.into()).expect("a thread");
    let data = pattern(1 << 20);
    let sent = data.clone();
    let mut guest = fake.guest.try_clone().expect("a descriptor");
    // The job reads to its end; only then is there more to read.
    let job = thread::spawn(move || {
        let mut received = Vec::new();
        while let Ok(Some(frame)) = read_frame(&mut guest) {
            match frame.kind {
                Kind::Stdin => received.extend(frame.payload),
                Kind::StdinEnd => break,
                kind => panic!("{kind:?} is not for a guest"),
            }
        }
        write_frame(&mut guest, Kind::Exit, b"").expect("it has room");
        received
    });
    let sender = thread::spawn(move || {
        for piece in sent.chunks(20_000) {
            writer.write_all(piece).expect("it is read");
        }
    });
    let end = Instant::now() + LIMIT;
    let mut done = false;
    while !done {
        assert!(Instant::now() < end, "the job has not read all");
        for event in fake.flow.wait(Some(LIMIT)).expect("a wait") {
            match event {
                Event::Input(bytes) => fake.flow.send(Kind::Stdin, &bytes),
                Event::Frame(frame) => done = frame.kind == Kind::Exit,
                _ => {}
            }
        }
    }
    sender.join().expect("no panic");
    assert!(job.join().expect("no panic") == data);
}

#[test]
fn a_guest_that_reads_nothing_holds_up_its_input_only() {
    let mut fake = Fake::new();
    let endless = File::open("/dev/zero").expect("every Linux has it");
    fake.flow.read_input(endless.into()).expect("a thread");
    // So that it is connected.
    write_frame(&mut fake.guest, Kind::Start, b"").expect("it has room");
    let mut taken = 0;
    loop {
        let events = fake.flow.wait(Some(Duration::from_millis(200)));
        let events = events.expect("a wait");
        if events.is_empty() {
            break;
        }
        for event in events {
            if let Event::Input(bytes) = event {
                taken += bytes.len();
                fake.flow.send(Kind::Stdin, &bytes);
            }
        }
        assert!(taken < HELD_BYTES, "{taken} bytes went into memory");
    }
    writeln!(fake.console, "still here").expect("a pipe has room");
    fake.until(|event| matches!(event, Event::Console(_)).then_some(()));
}

#[test]
fn the_end_of_a_child_wakes_the_loop() {
    let mut fake = Fake::new();
    let mut child = Command::new("true").spawn().expect("it is everywhere");
    fake.until(|event| matches!(event, Event::Look).then_some(()));
    child.wait().expect("it is ours");
}

#[test]
fn a_qemu_that_never_connected_ends_the_channel_with_its_console() {
    let folder = TemporaryFolder::new().expect("a temporary folder");
    let listener = folder.listen("a.sock").expect("a socket");
    let (theirs, console) = pipe().expect("a pipe");
    let mut flow = Flow::new(theirs, listener).expect("a flow");
    drop(console);
    let mut ends = Vec::new();
    while !flow.has_ended() {
        ends.extend(flow.wait(Some(LIMIT)).expect("a wait"));
    }
    assert!(ends.iter().any(|end| matches!(end, Event::ConsoleEnd)));
    assert!(ends
        .iter()
        .any(|end| matches!(end, Event::ChannelEnd(None))));
}

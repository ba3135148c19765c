// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program as its users see it: options, exit status, signals, socket.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic with a stack trace"
)]

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use coax_program::conventions::Calls;
use rustix::process::{kill_process, Pid, Signal};
use vhost::vhost_user::Frontend;
use vhost::VhostBackend;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-device-coax");
const BENCH: &str = env!("CARGO_BIN_EXE_coax-engine-bench");

/// Longest time that the program may take to make its socket.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Longest time that the program may take to end, as the conventions ask for a quick end.
const END_LIMIT: Duration = Duration::from_secs(5);

fn output(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

/// Starts the program and waits for its socket. Signals end it, whatever whoever runs the tests ignores.
fn start(path: &Path) -> Child {
    let mut child = Command::new("env")
        .args(["--default-signal=HUP,INT,TERM", PROGRAM])
        .arg("--socket-path")
        .arg(path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_socket(path, &mut child);
    child
}

fn wait_for_socket(path: &Path, child: &mut Child) {
    let start = Instant::now();
    while !path.exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(start.elapsed() < START_LIMIT, "the program does not listen");
        std::thread::yield_now();
    }
}

/// Connects to a program whose socket has its name: that comes before it listens.
fn connect(path: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(connection) => {
                connection.set_read_timeout(Some(END_LIMIT)).unwrap();
                return connection;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
        assert!(start.elapsed() < START_LIMIT, "the program does not listen");
        std::thread::yield_now();
    }
}

fn exit_status(mut child: Child) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > END_LIMIT {
            child.kill().unwrap();
            panic!("the program does not end");
        }
        std::thread::yield_now();
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn capabilities_are_json_of_the_vhost_user_schema() {
    let output = output(&["--print-capabilities", "--fd", "99", "--unknown"]);
    assert_eq!(output.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value, serde_json::json!({ "type": "coax", "features": [] }));
}

#[test]
fn usage_errors_have_status_2_and_say_nothing_on_stdout() {
    for args in [
        &[][..],
        &["--socket-path", "/tmp/x", "--fd", "3"],
        &["--socket-path", "/tmp/x", "--engines", "0"],
        &["--socket-path", "/tmp/x", "--unknown"],
    ] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn failures_have_status_1_and_one_message() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("none").join("socket");
    for args in [
        ["--socket-path", nowhere.to_str().unwrap()],
        ["--fd", "1"],
        ["--fd", "999"],
    ] {
        let output = output(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.starts_with("vhost-device-coax: "), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn signals_end_the_program_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    for name in [Signal::TERM, Signal::INT, Signal::HUP] {
        let child = start(&path);
        assert!(path.exists());
        signal(&child, name);
        assert_eq!(exit_status(child), Some(0));
        assert!(!path.exists());
    }
    let child = start(&path);
    let connection = connect(&path);
    signal(&child, Signal::TERM);
    assert_eq!(exit_status(child), Some(0));
    assert!(!path.exists());
    drop(connection);
}

#[test]
fn front_end_that_disconnects_ends_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let child = start(&path);
    drop(connect(&path));
    assert_eq!(exit_status(child), Some(0));
    assert!(!path.exists());
}

#[test]
fn second_start_leaves_the_first_serving() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let first = start(&path);
    for _ in 0..3 {
        let second = output(&["--socket-path", path.to_str().unwrap()]);
        assert_eq!(second.status.code(), Some(1));
        let message = String::from_utf8(second.stderr).unwrap();
        assert!(message.contains("is in use"), "{message}");
    }
    let front_end = Frontend::from_stream(connect(&path), 1);
    assert_ne!(front_end.get_features().unwrap(), 0);
    drop(front_end);
    assert_eq!(exit_status(first), Some(0));
    assert!(std::fs::read_dir(directory.path())
        .unwrap()
        .next()
        .is_none());
}

#[test]
fn program_that_was_killed_leaves_nothing_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mut killed = start(&path);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(path.exists());
    let mut child = Command::new(PROGRAM)
        .arg("--socket-path")
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stderr = child.stderr.take().unwrap();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    signal(&child, Signal::TERM);
    assert_eq!(exit_status(child), Some(0));
    assert!(std::fs::read_dir(directory.path())
        .unwrap()
        .next()
        .is_none());
}

#[test]
fn one_of_many_that_start_at_once_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    for _ in 0..5 {
        // A socket that nobody listens on any more.
        drop(UnixListener::bind(&path).unwrap());
        let mut starters: Vec<Child> = (0..6)
            .map(|_| {
                Command::new(PROGRAM)
                    .arg("--socket-path")
                    .arg(&path)
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let start = Instant::now();
        while starters.len() > 1 {
            starters.retain_mut(|child| match child.try_wait().unwrap() {
                Some(status) => {
                    assert_eq!(status.code(), Some(1));
                    false
                }
                None => true,
            });
            assert!(start.elapsed() < START_LIMIT, "several serve one path");
            std::thread::yield_now();
        }
        let front_end = Frontend::from_stream(connect(&path), 1);
        assert_ne!(front_end.get_features().unwrap(), 0);
        drop(front_end);
        assert_eq!(starters.pop().and_then(exit_status), Some(0));
        assert!(!path.exists());
    }
}

#[test]
fn second_front_end_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let child = start(&path);
    let first = Frontend::from_stream(connect(&path), 1);
    assert_ne!(first.get_features().unwrap(), 0);
    for _ in 0..3 {
        let mut second = connect(&path);
        assert_eq!(second.read(&mut [0; 16]).unwrap(), 0);
    }
    assert_ne!(first.get_features().unwrap(), 0);
    drop(first);
    assert_eq!(exit_status(child), Some(0));
}

#[test]
fn socket_that_another_put_in_place_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let child = start(&path);
    let other = directory.path().join("other");
    let _listener = UnixListener::bind(&other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    signal(&child, Signal::TERM);
    assert_eq!(exit_status(child), Some(0));
    assert!(path.exists());
}

#[test]
fn socket_of_the_parent_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let adopted = |fd: OwnedFd| {
        Command::new("sh")
            .args(["-c", "exec \"$0\" --fd 3 3<&0", PROGRAM])
            .stdin(fd)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let child = adopted(listener.into());
    drop(connect(&path));
    assert_eq!(exit_status(child), Some(0));
    // It is the parent's to remove.
    assert!(path.exists());

    // A connection is served at once.
    let (connected, peer) = UnixStream::pair().unwrap();
    peer.set_read_timeout(Some(START_LIMIT)).unwrap();
    let child = adopted(connected.into());
    let front_end = Frontend::from_stream(peer, 1);
    assert_ne!(front_end.get_features().unwrap(), 0);
    drop(front_end);
    assert_eq!(exit_status(child), Some(0));

    let datagrams = UnixDatagram::pair().unwrap().0;
    assert_eq!(exit_status(adopted(datagrams.into())), Some(1));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(exit_status(adopted(file.into())), Some(1));
}

/// Does something again and again until it would have to wait.
fn exhaust(fd: &OwnedFd, what: impl Fn(&OwnedFd) -> rustix::io::Result<usize>) {
    let flags = rustix::fs::fcntl_getfl(fd).unwrap();
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while what(fd).is_ok() {}
    rustix::fs::fcntl_setfl(fd, flags).unwrap();
}

#[test]
fn standard_error_that_nobody_reads_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let pipe = rustix::pipe::pipe().unwrap();
    let (read, write) = UnixStream::pair().unwrap();
    for (read, write) in [pipe, (read.into(), write.into())] {
        exhaust(&write, |fd| rustix::io::write(fd, &[b'\n'; 1024]));
        let mut child = Command::new(PROGRAM)
            .args(["-vv", "--socket-path"])
            .arg(&path)
            .stderr(write)
            .spawn()
            .unwrap();
        wait_for_socket(&path, &mut child);
        let front_end = Frontend::from_stream(connect(&path), 1);
        assert_ne!(front_end.get_features().unwrap(), 0);
        // Somebody reads again, and is told what was lost.
        exhaust(&read, |fd| rustix::io::read(fd, &mut [0; 1024]));
        drop(front_end);
        assert_eq!(exit_status(child), Some(0));
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert!(text.contains("2 lines left out"), "{text}");
        assert!(text.contains("front end disconnected"), "{text}");
    }
}

#[test]
fn core_dumps_are_without_the_memory_of_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let child = start(&path);
    let filter = std::fs::read_to_string(format!("/proc/{}/coredump_filter", child.id())).unwrap();
    let filter = u32::from_str_radix(filter.trim(), 16).unwrap();
    // core(5): shared memory of each kind, and what is the process's own.
    assert_eq!(filter & 0x14a, 0);
    assert_ne!(filter & 1, 0);
    signal(&child, Signal::TERM);
    assert_eq!(exit_status(child), Some(0));
}

#[test]
fn benchmark_prints_rates_of_host_and_engine() {
    let sizes = ["--bytes", "64K", "--gemm-size", "40", "--nodes", "100"];
    let output = Command::new(BENCH)
        .args(sizes)
        .args(["--spread", "64K", "--rounds", "1", "--scattered", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in ["copy", "sha256", "list", "tree", "sgemm", "dgemm"] {
        for side in ["host", "engine"] {
            assert!(value["results"][name][side].as_f64().unwrap() > 0.0);
        }
    }
    let output = Command::new(BENCH)
        .args(["--nodes", "10000", "--spread", "4K"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn words_that_cannot_be_written_are_failures_and_no_panics() {
    Calls {
        program: PROGRAM,
        answers: &[&["--version"], &["--print-capabilities"]],
        failures: &[&["--socket-path=/nonexistent/socket"], &["--fd=999"]],
    }
    .check();
    Calls {
        program: BENCH,
        answers: &[&["--version"]],
        failures: &[&["--nodes=10000", "--spread=4K"]],
    }
    .check();
    let version = Command::new(BENCH).arg("--version").output().unwrap();
    assert!(
        version.stdout.starts_with(b"coax-engine-bench "),
        "{version:?}"
    );
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let script = "trap '' HUP INT; exec \"$0\" --socket-path \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, PROGRAM])
        .arg(&path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_socket(&path, &mut child);
    for name in [Signal::HUP, Signal::INT] {
        signal(&child, name);
    }
    let front_end = Frontend::from_stream(connect(&path), 1);
    assert_ne!(front_end.get_features().unwrap(), 0);
    signal(&child, Signal::TERM);
    assert_eq!(exit_status(child), Some(0));
    assert!(!path.exists());
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program as its users see it: options, exit status, signals, socket.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic with a stack trace"
)]

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-device-coax");
const BENCH: &str = env!("CARGO_BIN_EXE_coax-engine-bench");

/// Longest time that the program may take to make its socket.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Longest time that the program may take to end, as the conventions ask for a quick end.
const END_LIMIT: Duration = Duration::from_secs(5);

fn output(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

/// Starts the program and waits for its socket.
fn start(path: &Path) -> Child {
    let mut child = Command::new(PROGRAM)
        .arg("--socket-path")
        .arg(path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !path.exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(start.elapsed() < START_LIMIT, "the program does not listen");
        std::thread::yield_now();
    }
    child
}

/// Connects to a program whose socket has its name: that comes before it listens.
fn connect(path: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(connection) => return connection,
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

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
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
    for name in ["TERM", "INT"] {
        let child = start(&path);
        assert!(path.exists());
        signal(&child, name);
        assert_eq!(exit_status(child), Some(0));
        assert!(!path.exists());
    }
    let child = start(&path);
    let connection = connect(&path);
    signal(&child, "TERM");
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
fn listening_descriptor_of_the_parent_is_served() {
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

    let (connected, _peer) = UnixStream::pair().unwrap();
    assert_eq!(exit_status(adopted(connected.into())), Some(1));
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

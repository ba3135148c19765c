// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program with QEMU for a front end, without a guest: what QEMU takes, and what it refuses.
//!
//! The environment variable `COAX_QEMU` says which QEMU, built with the patches of `qemu-patches`;
//! without it these tests pass and say so.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic with a stack trace"
)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-device-coax");

/// Longest wait for a line; generous, for loaded machines.
const LIMIT: Duration = Duration::from_secs(60);

/// A program and the lines of its standard error; dropping it kills it.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for a line that has `text` in it.
    fn say(&self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => said.push(line),
                Err(error) => panic!("{text:?} is not said, {error}: {said:#?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn back_end(socket: &Path, args: &[&str]) -> Running {
    let mut command = Command::new(PROGRAM);
    command.arg("--socket-path").arg(socket).args(args);
    let running = Running::start(&mut command);
    running.say("listening");
    running
}

/// QEMU with the device and a stopped guest, or nothing without QEMU.
#[expect(
    clippy::print_stdout,
    reason = "it is part of a test, whose output libtest keeps"
)]
fn qemu(socket: &Path, args: &[&str]) -> Option<Running> {
    let Some(program) = std::env::var_os("COAX_QEMU") else {
        println!("skipped: COAX_QEMU is not set");
        return None;
    };
    let mut chardev = OsString::from("socket,id=coax,reconnect-ms=100,path=");
    chardev.push(socket);
    let mut command = Command::new(program);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-S"])
        .args(["-L", "/usr/share/seabios", "-L", "/usr/share/qemu"])
        .args(["-machine", "q35,memory-backend=mem", "-m", "64M"])
        .args(["-object", "memory-backend-memfd,id=mem,size=64M,share=on"])
        .args([
            "-object",
            "memory-backend-memfd,id=devmem,size=64M,share=on",
        ])
        .args(args)
        .arg("-chardev")
        .arg(chardev)
        .args(["-device", "vhost-user-coax-pci,chardev=coax,memdev=devmem"])
        .args(["-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    Some(Running::start(&mut command))
}

/// Waits until QEMU has made its devices: its monitor answers then.
fn wait_for_devices(qemu: &mut Running) {
    let mut stdin = qemu.child.stdin.take().unwrap();
    writeln!(stdin, "{{\"execute\": \"qmp_capabilities\"}}").unwrap();
    let answers = BufReader::new(qemu.child.stdout.take().unwrap());
    assert!(answers
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("return")));
    // Open for as long as QEMU runs.
    qemu.child.stdin = Some(stdin);
}

#[test]
fn guests_whose_atomics_are_not_atomic_to_the_device_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    for (args, text) in [
        (&["-accel", "tcg"][..], "-smp 1,maxcpus=2"),
        (&["-accel", "tcg", "-smp", "1"], "-smp 1,maxcpus=2"),
        (
            &["-accel", "tcg,thread=single", "-smp", "2"],
            "thread=multi",
        ),
        (&["-icount", "auto", "-smp", "2"], "-icount"),
    ] {
        let _back_end = back_end(&socket, &[]);
        let Some(mut qemu) = qemu(&socket, args) else {
            return;
        };
        qemu.say("vhost-user-coax: with");
        qemu.say(text);
        assert_eq!(qemu.child.wait().unwrap().code(), Some(1));
    }
    for args in [["-smp", "2"], ["-smp", "1,maxcpus=2"]] {
        let back_end = back_end(&socket, &[]);
        let _qemu = qemu(&socket, &[&["-accel", "tcg"], &args[..]].concat());
        back_end.say("front end connected");
    }
}

#[test]
fn another_back_end_goes_on_for_the_first_only_if_the_guest_can_use_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let first = back_end(&socket, &[]);
    let Some(mut qemu) = qemu(&socket, &["-accel", "tcg", "-smp", "2"]) else {
        return;
    };
    wait_for_devices(&mut qemu);
    first.say("front end connected");
    drop(first);
    for (engines, text) in [
        ("1", "supported by the backend is 5"),
        ("3", "has 3 command queues"),
    ] {
        let other = back_end(&socket, &["--engines", engines]);
        qemu.say(text);
        other.say("front end disconnected");
    }
    let second = back_end(&socket, &[]);
    second.say("front end connected");
    assert!(second.lines.recv_timeout(Duration::from_secs(1)).is_err());
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A QEMU that others have built, asked what it can. That takes a tenth of a second, so nothing of it is kept.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::sys::signal::Signal;

use super::{Form, Qemu, PROGRAM};
use crate::process::Group;
use crate::tool;

/// The first version with all that VMs are started with, `-run-with exit-with-parent=on` and `-object
/// monitor-qmp` among it.
const FIRST_VERSION: (u32, u32) = (11, 1);
/// Longest wait for an answer: loading the program, and its modules, from a slow disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The device, as our patches have it.
pub const WHOLE_DEVICE: &str = "vhost-user-coax-pci";
/// What else it takes: a host bridge in a memory node.
const WHOLE_DEVICE_PARTS: &[&str] = &["pxb-pcie"];
/// What stands for it: the device and its memory.
const DEVICE_PARTS: &[&str] = &["vhost-user-test-device-pci", "ivshmem-plain"];
/// Other devices that a VM has. A QEMU is asked for each by name: for a list of all it loads every module that is
/// installed, and dies of one that belongs to another QEMU.
const DEVICES: &[&str] = &[
    "pcie-root-port",
    "virtio-serial-pci",
    "virtserialport",
    "vhost-user-fs-pci",
];
/// What else a VM is made of: lists that a QEMU is asked for, and names in them.
const LISTED: &[(&str, &[&str])] = &[
    ("machine", &["q35"]),
    (
        "object",
        &[
            "memory-backend-memfd",
            "monitor-qmp",
            "acpi-generic-initiator",
        ],
    ),
];

/// The first QEMU in `PATH`.
///
/// # Errors
///
/// There is none, and those of [`open`].
pub fn in_path() -> Result<Qemu> {
    let program = tool::find(PROGRAM).with_context(|| {
        format!("There is no {PROGRAM} in PATH: install your distribution's, or have --qemu debian fetch Debian's")
    })?;
    open(&program)
}

/// The QEMU that `program` is.
///
/// # Errors
///
/// One line with what it lacks.
pub fn open(program: &Path) -> Result<Qemu> {
    let shown = program.display();
    let said = ask(program, &["--version"])?;
    let said = said.lines().next().unwrap_or_default();
    let version = version(said).with_context(|| format!("{shown} is no QEMU: it says {said:?}"))?;
    let (major, minor) = FIRST_VERSION;
    ensure!(
        numbers(version) >= Some(FIRST_VERSION),
        "{shown} is QEMU {version}, and VMs with the device take {major}.{minor} or later: leave --qemu out for one that is built here"
    );
    let mut missing = Vec::new();
    for (list, names) in LISTED {
        let said = ask(program, &[&format!("-{list}"), "help"])?;
        let lacks = names.iter().filter(|name| !has(&said, name));
        missing.extend(lacks.map(|name| format!("{list} {name}")));
    }
    let (form, parts) = match has_device(program, WHOLE_DEVICE)? {
        true => (Form::OneFunction, WHOLE_DEVICE_PARTS),
        false => (Form::TwoFunctions, DEVICE_PARTS),
    };
    for name in DEVICES.iter().chain(parts) {
        if !has_device(program, name)? {
            missing.push(format!("device {name}"));
        }
    }
    ensure!(
        missing.is_empty(),
        "{shown} is QEMU {version}, and lacks what VMs with the device are made of: {}; leave --qemu out for one that is built here",
        missing.join(", ")
    );
    Ok(Qemu {
        name: String::new(),
        program: program.to_owned(),
        version: version.to_owned(),
        firmware: Vec::new(),
        form,
        seconds: 0.0,
    })
}

/// What `program` writes to standard output.
fn ask(program: &Path, args: &[&str]) -> Result<String> {
    let (status, said, errors) = call(program, args)?;
    let shown = program.display();
    ensure!(
        status.success(),
        "{shown} {} ended with {status}: {}",
        args.join(" "),
        errors.lines().last().unwrap_or("without a word")
    );
    Ok(said)
}

/// Whether it has a device of this name.
fn has_device(program: &Path, name: &str) -> Result<bool> {
    Ok(options_of(program, name)?.is_some())
}

/// The properties of a device of this name; nothing if a QEMU has no such device.
///
/// # Errors
///
/// It does not answer.
pub fn options_of(program: &Path, name: &str) -> Result<Option<Vec<String>>> {
    let (_, said, _) = call(program, &["-device", &format!("{name},help")])?;
    let options = said.strip_prefix(&format!("{name} options:"));
    Ok(options.map(|options| {
        let names = options.lines().filter_map(|line| line.split_once('='));
        names.map(|(name, _)| name.trim().to_owned()).collect()
    }))
}

/// How `program` ended, and what it wrote to standard output and standard error.
fn call(program: &Path, args: &[&str]) -> Result<(ExitStatus, String, String)> {
    let call = || format!("{} {}", program.display(), args.join(" "));
    // Files take all that it says, and end when it does.
    let file = || tempfile::tempfile().context("A temporary file");
    let (output, errors) = (file()?, file()?);
    let copy = |file: &File| file.try_clone().context("A temporary file");
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.stdout(copy(&output)?).stderr(copy(&errors)?);
    let started = Group::start(&mut command, Signal::SIGKILL);
    let mut group = started.with_context(|| format!("Cannot start {}", call()))?;
    let status = group.wait_at_most(ANSWER_LIMIT).with_context(call)?;
    let status = status.with_context(|| {
        let seconds = ANSWER_LIMIT.as_secs();
        format!("{} does not end within {seconds} s", call())
    })?;
    let said = |file| text(file).with_context(call);
    Ok((status, said(output)?, said(errors)?))
}

/// All that is in a file.
fn text(mut file: File) -> io::Result<String> {
    let mut said = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// `QEMU emulator version 11.1.3 (Debian …)` → `11.1.3`.
fn version(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("QEMU emulator version ")?;
    let version = rest.split(' ').next()?;
    numbers(version).and(Some(version))
}

/// Major and minor number; development versions have the number before the next.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// Whether a list has this name, as the first word of a line.
fn has(list: &str, name: &str) -> bool {
    let mut lines = list.lines();
    lines.any(|line| line.split_whitespace().next() == Some(name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const VERSION: &str = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)\nCopyright";
    const MACHINES: &str = "Supported machines are:\nq35      Standard PC (alias of pc-q35-11.1)";
    const OBJECTS: &str = "List of user creatable objects:\n  acpi-generic-initiator\n  memory-backend-memfd\n  monitor-qmp";
    const DEVICES: &str = "pcie-root-port virtio-serial-pci virtserialport vhost-user-fs-pci \
                           vhost-user-test-device-pci ivshmem-plain";

    /// What is made of a program that says these things, and `more` of its own.
    fn opened(version: &str, devices: &str, more: &str) -> Result<Qemu> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("qemu");
        let script = format!(
            "#!/bin/sh\n{more}\ncase \"$*\" in\n--version) echo '{version}';;\n'-machine help') echo '{MACHINES}';;\n\
             '-object help') echo '{OBJECTS}';;\nesac\nfor name in {devices}; do\n\
             test \"$*\" != \"-device $name,help\" || {{ echo \"$name options:\"; exit; }}\ndone\n\
             test \"$1\" != -device\n"
        );
        // Written by a program of its own: a child of another test would keep a file of ours open, and the
        // kernel runs no file that somebody may write.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/stdin"]).arg(&program);
        let mut install = install.stdin(Stdio::piped()).spawn()?;
        let mut input = install.stdin.take().context("Its input")?;
        input.write_all(script.as_bytes())?;
        drop(input);
        ensure!(install.wait()?.success(), "install failed");
        open(&program)
    }

    #[test]
    fn an_unpatched_qemu_has_the_device_in_two_functions() {
        let qemu = opened(VERSION, DEVICES, "").expect("it has all");
        assert_eq!(
            (qemu.version.as_str(), qemu.form),
            ("11.1.3", Form::TwoFunctions)
        );
    }

    #[test]
    fn a_patched_qemu_has_it_in_one_and_needs_no_parts() {
        let devices = DEVICES
            .replace("vhost-user-test-device-pci", WHOLE_DEVICE)
            .replace("ivshmem-plain", "pxb-pcie");
        let qemu = opened(VERSION, &devices, "").expect("it has all");
        assert_eq!(qemu.form, Form::OneFunction);
    }

    #[test]
    fn what_a_qemu_lacks_is_named_in_one_line() {
        let old = VERSION.replace("11.1.3", "7.2.22");
        let few = DEVICES
            .replace("ivshmem-plain", "ivshmem-doorbell")
            .replace("vhost-user-fs-pci", "virtio-9p-pci");
        let shallow = "test \"$1\" = --version || exec sh -c 'exit 3'";
        let broken = "echo first >&2; echo 'qemu: no libpixman-1.so.0' >&2; exit 127";
        for (version, devices, more, words) in [
            (old.as_str(), DEVICES, "", ["7.2.22", "11.1 or later"]),
            (
                VERSION,
                &few,
                "",
                ["device ivshmem-plain", "device vhost-user-fs-pci"],
            ),
            ("BusyBox", DEVICES, "", ["no QEMU", "BusyBox"]),
            (
                VERSION,
                DEVICES,
                shallow,
                ["-machine help", "exit status: 3: without a word"],
            ),
            (
                VERSION,
                DEVICES,
                broken,
                [
                    "--version ended with exit status: 127",
                    "no libpixman-1.so.0",
                ],
            ),
        ] {
            let error = opened(version, devices, more).expect_err("it cannot do");
            let text = format!("{error:#}");
            assert_eq!(text.lines().count(), 1, "{text}");
            for word in words {
                assert!(text.contains(word), "no {word} in {text}");
            }
        }
        let error = open(Path::new("/etc/passwd")).expect_err("no program");
        assert!(
            format!("{error:#}").starts_with("Cannot start /etc/passwd"),
            "{error:#}"
        );
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, is_enough) in [
            ("11.1.0", true),
            ("11.10.0", true),
            ("12.0.1", true),
            ("11.0.50", false),
            ("9.2.4", false),
        ] {
            assert_eq!(
                numbers(version) >= Some(FIRST_VERSION),
                is_enough,
                "{version}"
            );
        }
        assert_eq!(version("QEMU emulator version eleven"), None);
        assert_eq!(version(""), None);
    }
}

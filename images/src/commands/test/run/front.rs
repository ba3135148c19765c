// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VMs that others start: by `coax build front`, QEMU under its own name, and by the options of `coax qemu-args`.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use coax_images::accel::Accel;
use coax_images::images::{Images, Which};
use coax_images::process::Group;
use nix::sys::signal::Signal;

/// From the VM's start to its end; on a kernel without checks it takes 10 s under TCG.
const VM_LIMIT: Duration = Duration::from_secs(120);
/// What a guest without an init does: the shell is its first process. The kernel's command line has room for it.
const SCRIPT: &str = "busybox mount -t devtmpfs none /dev; busybox mount -t proc none /proc; \
                      busybox mount -t sysfs none /sys; \
                      for module in /lib/modules/early/*.ko; do [ ! -e $module ] || insmod $module; done; \
                      insmod /lib/modules/coax.ko mode=1 && coax-demo hash --json -; poweroff -f";
/// In what the demonstration tells.
const PASSED: &str = r#""result":"pass""#;

/// The front program takes the place of QEMU, with memory that nobody speaks of, and as libvirt writes it.
pub fn stands_for_qemu(which: &Which) -> Result<()> {
    let images = Images::built(which)?;
    let front = coax(which, &["build", "front"], &[])?.0;
    let front = Path::new(front.trim_end());
    let mut plain = Command::new(front);
    hashes(
        &images,
        plain.args(["-machine", "q35", "-smp", "2", "-m", "1G"]),
    )?;
    let memory =
        r#"{"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"size":1073741824}"#;
    let mut libvirts = Command::new(front);
    libvirts.args([
        "-machine",
        "q35,memory-backend=pc.ram",
        "-smp",
        "2",
        "-m",
        "1024",
    ]);
    hashes(&images, libvirts.args(["-object", memory]))?;
    let refused = Command::new(front).args(["-machine", "microvm"]).output();
    let refused = refused.context("Starting the front program")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1) && said.contains("microvm") && said.lines().count() == 1,
        "A microvm: {}, {said}",
        refused.status
    );
    Ok(())
}

/// The options and the back end that `coax qemu-args` tells make a VM with the device.
pub fn options_fit(which: &Which) -> Result<()> {
    let images = Images::built(which)?;
    let folder = tempfile::tempdir().context("A temporary folder")?;
    let sockets = ["--sockets".into(), folder.path().into()];
    let (options, said) = coax(which, &["qemu-args"], &sockets)?;
    let mut told = said
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" &"));
    let command = told
        .next()
        .with_context(|| format!("No back end is told: {said}"))?;
    let mut command = shell(&format!("exec {command}"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut back_end =
        Group::start(&mut command, Signal::SIGKILL).context("Starting the back end")?;
    let log = back_end
        .child()
        .stderr
        .take()
        .context("The back end's log")?;
    let mut log = BufReader::new(log).lines();
    let listens = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")));
    ensure!(listens.is_some(), "The back end does not listen");
    // It goes on writing.
    let log = thread::spawn(move || log.map_while(Result::ok).collect::<Vec<_>>());

    let machine = [
        "-machine",
        "q35,memory-backend=m",
        "-smp",
        "2",
        "-m",
        "1G",
        "-object",
        "memory-backend-memfd,id=m,size=1G,share=on",
    ];
    let mut qemu = shell(&format!("exec \"$0\" \"$@\" {}", options.trim_end()));
    qemu.arg(&images.qemu);
    for folder in &images.firmware {
        qemu.arg("-L").arg(folder);
    }
    hashes(&images, qemu.args(machine))?;
    let ended = back_end
        .wait_at_most(VM_LIMIT)
        .context("Waiting for the back end")?;
    let log = log.join();
    ensure!(
        ended.is_some_and(|status| status.success()),
        "The back end: {ended:?}, {log:?}"
    );
    Ok(())
}

fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]);
    shell
}

/// What `coax` with these words writes to standard output and standard error.
fn coax(which: &Which, words: &[&str], more: &[OsString]) -> Result<(String, String)> {
    let program = env::current_exe().context("Where this program is")?;
    let mut command = Command::new(program);
    command.args(words).args(which.words()).args(more);
    let output = command.stdin(Stdio::null()).output();
    let output = output.context("Running coax")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success(),
        "coax {} ended with {}\n{error}",
        words.join(" "),
        output.status
    );
    Ok((said, error))
}

/// Has the device hash a file in a VM that `qemu` starts.
fn hashes(images: &Images, qemu: &mut Command) -> Result<()> {
    qemu.args([
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    if images.accel.accel == Accel::Tcg {
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]);
    } else {
        qemu.args(["-accel", "kvm", "-cpu", "host"]);
    }
    qemu.arg("-kernel").arg(&images.kernel);
    qemu.arg("-initrd").arg(&images.initramfs);
    let script = format!("console=ttyS0 panic=-1 rdinit=/bin/sh -- -c \"{SCRIPT}\"");
    qemu.args(["-append", &script]);
    let console = tempfile::tempfile().context("A temporary file")?;
    let copy = || console.try_clone().context("A temporary file");
    qemu.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
    let mut vm = Group::start(qemu, Signal::SIGKILL).context("Starting the VM")?;
    let ended = vm.wait_at_most(VM_LIMIT * images.time_factor);
    let ended = ended.context("Waiting for the VM")?;
    let mut said = Vec::new();
    let mut console = console;
    console.rewind().context("The console")?;
    console.read_to_end(&mut said).context("The console")?;
    let said = String::from_utf8_lossy(&said);
    ensure!(
        ended.is_some_and(|status| status.success()) && said.contains(PASSED),
        "The VM: {ended:?}\n{said}"
    );
    Ok(())
}

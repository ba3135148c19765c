// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs of the host in a guest whose root file system is the host's.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;

use anyhow::{ensure, Context, Result};
use coax::Residency;
use nix::libc::{PROT_READ, PROT_WRITE};

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::program::{output_of, run};
use crate::witness::{GONE, GUARDED, MOVED, TEXT};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "programs",
    cases: &[
        case!(
            a_dynamic_program_runs_and_its_end_comes_through,
            "the host's sh with the host's C library: input, output, errors, status, signal"
        )
        .in_vm(Vm::Tree)
        .modes(&[Mode::Private]),
        case!(
            what_is_written_stays_in_the_guest,
            "files written, removed, renamed; the host looks at its folder afterwards"
        )
        .in_vm(Vm::Tree)
        .modes(&[Mode::Private]),
        case!(
            the_guests_own_file_systems_and_programs_are_there,
            "/proc, /sys, /dev and the others are the guest's; coaxctl and coax run"
        )
        .in_vm(Vm::Tree)
        .modes(&[Mode::Private]),
        case!(
            programs_run_where_the_page_cache_held_others,
            "eleven programs in turn, the page cache dropped between the rounds"
        )
        .in_vm(Vm::Tree)
        .modes(&[Mode::Private]),
        case!(
            a_mapped_program_of_the_host_is_read_in_place,
            "the page cache's pages of a virtio-fs file below an overlay, hashed by the device"
        )
        .in_vm(Vm::Tree),
        case!(
            a_mapped_file_of_the_scratch_layer_is_written_in_place,
            "a file of the host that was copied to the scratch layer"
        )
        .in_vm(Vm::Tree),
        case!(
            digests_of_files_are_those_of_sha256sum,
            "coaxctl sha256 on mapped files, a pipe, files of the kernel's with a length and without, odd names, none"
        )
        .in_vm(Vm::Tree),
    ],
};

fn a_dynamic_program_runs_and_its_end_comes_through() -> CaseResult {
    let maps = output_of(&["/bin/sh", "-c", "exec cat /proc/self/maps"])?;
    ensure!(maps.contains("libc.so.6"), "cat is not dynamic: {maps}");
    let output = run(&["/bin/sh", "-c", "cat; echo error >&2; exit 7"], "input")?;
    ensure!(
        output.stdout == b"input" && output.stderr == b"error\n",
        "{output:?}"
    );
    ensure!(output.status.code() == Some(7), "{output:?}");
    let output = run(&["/bin/sh", "-c", "kill -TERM $$"], "")?;
    ensure!(output.status.signal() == Some(15), "{output:?}");
    Ok(())
}

fn what_is_written_stays_in_the_guest() -> CaseResult {
    let (text, contents) = TEXT;
    let read = || fs::read_to_string(text).context("Reading what the host wrote");
    ensure!(read()? == contents, "The guest reads {:?}", read()?);
    fs::write(text, "as the guest wrote it").context("Writing")?;
    ensure!(read()? == "as the guest wrote it", "It reads {:?}", read()?);
    fs::remove_file(GONE).context("Removing")?;
    ensure!(!fs::exists(GONE)?, "{GONE} is still there");
    fs::rename(MOVED, "sub/new").context("Renaming")?;
    ensure!(
        fs::read("sub/new")? == b"moved",
        "{MOVED} changed on its way"
    );
    fs::set_permissions(GUARDED, fs::Permissions::from_mode(0o700)).context("chmod")?;
    fs::create_dir("folder").context("Making a folder")?;
    fs::write("folder/new", vec![1; 100 * PAGE]).context("Writing a new file")?;
    // Not only here: anywhere in the tree.
    fs::write("/etc/coax-scratch", "").context("Writing to /etc")?;
    Ok(())
}

fn the_guests_own_file_systems_and_programs_are_there() -> CaseResult {
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
    let kind_of = |place: &str| {
        let mut fields = mounts.lines().map(|line| line.split(' '));
        fields.find_map(|mut line| (line.nth(1) == Some(place)).then(|| line.next())?)
    };
    for (place, kind) in [
        ("/", "overlay"),
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "devtmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/tmp", "tmpfs"),
        ("/run", "tmpfs"),
    ] {
        ensure!(
            kind_of(place) == Some(kind),
            "{place} is no {kind}:\n{mounts}"
        );
    }
    for program in ["coaxctl", "coax"] {
        let info = output_of(&[program, "info"])?;
        ensure!(info.contains("/dev/coax0"), "{program} info: {info}");
    }
    let list = output_of(&["coax-guest-tests", "list"])?;
    ensure!(list.contains("programs."), "{list}");
    Ok(())
}

/// The back end of the tree writes programs into pages that have held others, which a machine that
/// translates code must notice.
fn programs_run_where_the_page_cache_held_others() -> CaseResult {
    const ROUNDS: usize = 8;
    // Debian calls the packages of all of them essential.
    let programs = [
        "bash",
        "dpkg",
        "find",
        "grep",
        "gzip",
        "perl",
        "sed",
        "sha256sum",
        "sort",
        "tar",
        "uname",
    ];
    for round in 0..ROUNDS {
        fs::write("/proc/sys/vm/drop_caches", "1").context("Dropping the page cache")?;
        for turn in 0..programs.len() {
            // Another order each time, so that what was one program's becomes another's.
            let program = programs[(turn * (round + 1)) % programs.len()];
            output_of(&[program, "--version"]).with_context(|| format!("In round {round}"))?;
        }
    }
    Ok(())
}

fn a_mapped_program_of_the_host_is_read_in_place() -> CaseResult {
    // Some MB on any machine.
    let path = fs::canonicalize("/usr/bin/perl")
        .or_else(|_| fs::canonicalize("/bin/bash"))
        .context("Neither perl nor bash")?;
    let contents = fs::read(&path).with_context(|| format!("Reading {}", path.display()))?;
    let file = File::open(&path).with_context(|| format!("Opening {}", path.display()))?;
    // Whole pages, so that what lies behind the file's end does not count.
    let len = contents.len() / PAGE * PAGE;
    let memory = Mapping::file_shared(file.as_fd(), len, PROT_READ)?;
    let device = Device::open()?;
    let before = device.stats()?;
    let digest = device.digest(&memory)?;
    ensure!(
        digest == pattern::sha256(&contents[..len]),
        "The device hashed something else than {}",
        path.display()
    );
    all_in_place(&device, &memory)?;
    let after = device.stats()?;
    ensure!(
        after.to_device_fault == before.to_device_fault,
        "Pages of a file moved"
    );
    Ok(())
}

fn a_mapped_file_of_the_scratch_layer_is_written_in_place() -> CaseResult {
    const LEN: usize = 64 * PAGE;
    // A file of the host, which the first write copies.
    let path = "/etc/passwd";
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("Opening {path}"))?;
    let content = pattern::bytes(120, LEN);
    file.write_all_at(&content, 0).context("Writing")?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, PROT_READ | PROT_WRITE)?;
    let device = Device::open()?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "The device's view"
    );
    device.fill(&memory, 0..LEN / 2, 0x0102_0304_0506_0708)?;
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0).context("Reading")?;
    let filled = 0x0102_0304_0506_0708_u64.to_le_bytes().repeat(LEN / 16);
    same("what the device wrote", &seen[..LEN / 2], &filled)?;
    same("what it did not", &seen[LEN / 2..], &content[LEN / 2..])?;
    all_in_place(&device, &memory)
}

fn all_in_place(device: &Device, memory: &Mapping) -> Result<()> {
    let pages = device.residency(range_of(memory))?;
    let expected = Residency {
        file: memory.pages(),
        ..Residency::default()
    };
    ensure!(pages == expected, "{pages:?} instead of {expected:?}");
    Ok(())
}

fn digests_of_files_are_those_of_sha256sum() -> CaseResult {
    let odd = "odd\nna\\me";
    fs::write(odd, vec![7; 3 * PAGE + 5]).context("Writing a file")?;
    fs::write("empty", "").context("Writing a file")?;
    let files = [
        TEXT.0,
        odd,
        "empty",
        "/bin/sh",
        "/usr/bin/python3",
        "/proc/version",
        "/sys/devices/system/cpu/online",
        "-",
    ];
    let files: Vec<&str> = files
        .into_iter()
        .filter(|file| *file == "-" || fs::exists(file).unwrap_or(false))
        .collect();
    let hash = |program: &[&str]| run(&[program, &files].concat(), "some input");
    let before = Device::open()?.stats()?.device().commands.get();
    let (ours, theirs) = (hash(&["coaxctl", "sha256"])?, hash(&["sha256sum"])?);
    let after = Device::open()?.stats()?.device().commands.get();
    ensure!(ours.status.success() && theirs.status.success(), "{ours:?}");
    ensure!(
        ours.stdout == theirs.stdout,
        "{}\nsha256sum:\n{}",
        String::from_utf8_lossy(&ours.stdout),
        String::from_utf8_lossy(&theirs.stdout)
    );
    ensure!(
        after - before >= files.len() as u64,
        "{} commands for {files:?}",
        after - before
    );
    // One that is missing is told, and the others are hashed all the same.
    let output = run(&["coaxctl", "sha256", "missing", "empty"], "")?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("missing"), "{said}");
    ensure!(output.stdout.ends_with(b"  empty\n"), "{output:?}");
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What programs expect of a machine, and users of programs, beside their purpose.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use coax_program::outln;
use serde_json::Value;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::program::{installed, number, output_of, run, same_in_a_storm};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "conventions",
    cases: &[
        case!(
            what_shells_and_libraries_go_by_is_there,
            "/dev/fd and the like, the guest's own name, /run/lock, the BLAS drop-in's place"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT)
        .modes(&[Mode::Private]),
        case!(
            names_need_be_no_text,
            "coaxctl sha256, residency and storm on a file and a program with a byte 0xff in the name"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT)
        .modes(&[Mode::Private]),
        case!(
            real_time_signals_end_programs_and_nothing_else,
            "a program in a storm, and an orphan in one"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT)
        .modes(&[Mode::Private]),
        case!(
            signals_that_were_ignored_stay_ignored,
            "SIGHUP and SIGCHLD ignored when a storm begins, and coax-demo"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT)
        .modes(&[Mode::Private]),
        case!(
            answers_that_cannot_be_written_are_failures,
            "coaxctl and coax-demo with a full disk for their output, or nobody who reads it"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT)
        .modes(&[Mode::Private]),
        case!(
            one_process_that_may_not_use_the_node_ends_no_storm,
            "a child whose cpuset lacks the device's memory"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT)
        .modes(&[Mode::Numa]),
    ],
};

/// A program in a storm takes ten times as long.
const LIMIT: Duration = Duration::from_secs(180);

/// A file name that is no text in any encoding.
fn odd_name() -> &'static OsStr {
    OsStr::from_bytes(b"odd\xff")
}

/// Runs a command with words that need be no text.
fn run_words(words: &[&OsStr]) -> Result<Output> {
    let (program, args) = words.split_first().context("No program")?;
    let output = Command::new(program).args(args).output();
    output.with_context(|| format!("Running {words:?}"))
}

fn what_shells_and_libraries_go_by_is_there() -> CaseResult {
    installed("bash")?;
    let script = "cat <(echo substituted); echo out >/dev/stdout; echo error >/dev/stderr; \
                  cat /dev/stdin; cat /dev/fd/0";
    let output = run(&["bash", "-c", script], "input")?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stdout == b"substituted\nout\ninput", "{output:?}");
    ensure!(output.stderr == b"error\n", "{output:?}");

    let name = output_of(&["uname", "-n"])?;
    let found = output_of(&["getent", "hosts", name.trim()])?;
    ensure!(found.contains(name.trim()), "{name}: {found:?}");

    let lock = Path::new("/run/lock/coax-test");
    fs::write(lock, "").with_context(|| format!("Writing {}", lock.display()))?;

    let drop_in = Path::new("/usr/lib/coax/libblas.so.3");
    ensure!(drop_in.exists(), "{} is not there", drop_in.display());
    Ok(())
}

fn names_need_be_no_text() -> CaseResult {
    let odd = odd_name();
    fs::copy("/bin/sleep", odd).context("Copying a program")?;
    let [coaxctl, sha256, sha256sum] = ["coaxctl", "sha256", "sha256sum"].map(OsStr::new);
    let (ours, theirs) = (
        run_words(&[coaxctl, sha256, odd])?,
        run_words(&[sha256sum, odd])?,
    );
    ensure!(ours.status.success(), "{ours:?}");
    ensure!(ours.stdout == theirs.stdout, "{ours:?}, {theirs:?}");

    let path = fs::canonicalize(".").context("The folder")?.join(odd);
    let mut program = Command::new(&path).arg("1000").spawn().context("It runs")?;
    let pid = OsString::from(program.id().to_string());
    let looked = ["residency", "prefetch", "evict"].map(|sub_command| {
        let output = run_words(&[coaxctl, sub_command.as_ref(), &pid, odd, "--json".as_ref()])?;
        ensure!(output.status.success(), "{sub_command}: {output:?}");
        Ok(output)
    });
    program.kill().context("It is there")?;
    program.wait().context("It is our child")?;
    for output in looked {
        let output = output?;
        let report: Value = serde_json::from_slice(&output.stdout).context("JSON")?;
        ensure!(report["pid"].is_u64(), "{report}");
    }

    // The kernel calls the process as its program.
    fs::copy("/bin/sh", odd).context("Copying a program")?;
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done";
    let storm = ["coaxctl", "storm", "--json", "report", "--"].map(OsStr::new);
    let program = [path.as_os_str(), "-c".as_ref(), script.as_ref()];
    let output = run_words(&[storm.as_slice(), &program].concat())?;
    ensure!(output.status.success(), "{output:?}");
    let report = fs::read("report").context("The storm's report")?;
    let report: Value = serde_json::from_slice(&report).context("The storm's report")?;
    ensure!(number(&report, "/processes")? == 1, "{report}");
    ensure!(number(&report, "/over/moved")? > 0, "{report}");
    Ok(())
}

fn real_time_signals_end_programs_and_nothing_else() -> CaseResult {
    // How it ends is compared there.
    same_in_a_storm(&[], &["sh", "-c", "kill -40 $$"], "")?;
    // Its parent ends at once, and the storm becomes its parent.
    let script = "orphan=$(sh -c 'sh -c \"kill -40 \\$\\$\" >/dev/null 2>&1 & echo $!'); \
                  while [ -d /proc/$orphan ]; do :; done; exit 5";
    let output = run(&["coaxctl", "storm", "--", "sh", "-c", script], "")?;
    ensure!(output.status.code() == Some(5), "{output:?}");
    Ok(())
}

fn signals_that_were_ignored_stay_ignored() -> CaseResult {
    // To the storm, and to the program in it, which would end of it.
    let script = "kill -HUP $PPID; kill -HUP $$; exit 5";
    let ignoring = ["env", "--ignore-signal=HUP,CHLD"];
    let storm = ["coaxctl", "storm", "--", "sh", "-c", script];
    let output = run(&[ignoring.as_slice(), &storm].concat(), "")?;
    ensure!(output.status.code() == Some(5), "{output:?}");
    // Each of its scenarios is a program that it waits for.
    fs::write("data", [7; 100]).context("Writing a file")?;
    let demo = [
        "coax-demo",
        "all",
        "--file",
        "data",
        "--size",
        "64",
        "--nodes",
        "100",
    ];
    let output = run(&[ignoring.as_slice(), &demo].concat(), "")?;
    let told = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(told == 4, "{output:?}");
    Ok(())
}

fn answers_that_cannot_be_written_are_failures() -> CaseResult {
    fs::write("data", [7; 100]).context("Writing a file")?;
    for words in [
        &["coaxctl", "stats"][..],
        &["coaxctl", "info", "--json"],
        &["coaxctl", "sha256", "data"],
        &["coax-demo", "structures", "--nodes", "100"],
        &[
            "coax-demo",
            "all",
            "--file",
            "data",
            "--size",
            "64",
            "--nodes",
            "100",
        ],
        &["coax-demo", "bench", "--migrate-sizes", "64K"],
    ] {
        let (program, args) = words.split_first().context("No program")?;
        let output_to = |stdout: OwnedFd| {
            let output = Command::new(program).args(args).stdout(stdout).output();
            output.with_context(|| format!("Running {words:?}"))
        };
        let full = File::options().write(true).open("/dev/full");
        let output = output_to(full.context("/dev/full")?.into())?;
        ensure!(output.status.code() == Some(1), "{words:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = format!(
            "{program}: Cannot write to standard output: No space left on device (os error 28)"
        );
        ensure!(said.lines().last() == Some(&last), "{words:?}: {said}");

        let (reader, gone) = UnixStream::pair().context("A pair of sockets")?;
        drop(reader);
        let output = output_to(gone.into())?;
        let signal = output.status.signal();
        ensure!(signal == Some(libc::SIGPIPE), "{words:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!said.contains("standard output"), "{words:?}: {said}");
    }
    // Where the file is the one of an option, that is told.
    let words = [
        "coax-demo",
        "structures",
        "--nodes",
        "100",
        "--json",
        "/dev/full",
    ];
    let output = run(&words, "")?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("Cannot write /dev/full: No space left"),
        "{said}"
    );
    Ok(())
}

fn one_process_that_may_not_use_the_node_ends_no_storm() -> CaseResult {
    // The child goes into a group of its own, while the storm is on already.
    let script =
        "set -e; cd /sys/fs/cgroup; echo +cpuset > cgroup.subtree_control; mkdir -p storm; \
        echo 0 > storm/cpuset.mems; \
        sh -c 'echo $$ > /sys/fs/cgroup/storm/cgroup.procs; i=0; \
               while [ $i -lt 20000 ]; do i=$((i + 1)); done' ; \
        i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done";
    let report = same_in_a_storm(&[], &["sh", "-c", script], "")?;
    outln!("{report}")?;
    ensure!(number(&report, "/forbidden")? > 0, "{report}");
    ensure!(number(&report, "/over/moved")? > 0, "{report}");
    Ok(())
}

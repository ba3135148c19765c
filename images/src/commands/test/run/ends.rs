// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax run` with input, output, signals and folders as others hand them on.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::unistd::{pipe2, Uid};
use rustix::termios::{tcsetwinsize, Winsize};

use coax_images::images::Which;
use coax_images::process::Group;
use coax_images::tool;

/// Longest life of a VM here; under TCG on a busy machine a boot takes 20 s.
const LIMIT_SECONDS: &str = "150";
/// Longest wait for the end of a run; whoever reads a run's output waits no longer than for the VM.
const LIMIT: Duration = Duration::from_secs(180);
/// What `coax` may take of memory, whatever a job prints.
const MEMORY_KIB: u64 = 64 << 10;

/// Name, what it shows, and the test.
type Trial = (&'static str, &'static str, fn(&Which) -> Result<()>);

pub const TRIALS: &[Trial] = &[
    (
        "run.output_to_a_pipe_that_does_not_block_comes_whole",
        "a pipe of one page, with `O_NONBLOCK`, before a job that fills it many times",
        output_to_a_pipe_that_does_not_block,
    ),
    (
        "run.input_from_a_pipe_that_does_not_block_comes_whole",
        "a pipe with `O_NONBLOCK` that is empty when the job starts",
        input_from_a_pipe_that_does_not_block,
    ),
    (
        "run.a_limit_holds_though_nobody_reads",
        "a job that prints for ever, and memory that stays within 64 MiB",
        a_limit_holds,
    ),
    (
        "run.the_run_ends_with_its_reader",
        "SIGPIPE, as of any program",
        ends_with_its_reader,
    ),
    (
        "run.output_that_is_lost_is_a_failure",
        "status 1 and one line for a full disk",
        lost_output,
    ),
    (
        "run.ignored_signals_stay_ignored",
        "SIGHUP does not end the run, and SIGCHLD does not hide the ends of its programs",
        ignored_signals,
    ),
    (
        "run.a_long_folder_for_temporary_files_will_do",
        "TMPDIR with more bytes than a socket's name may have, and nothing in it afterwards",
        long_folder,
    ),
    (
        "run.a_small_disk_for_temporary_files_is_named",
        "status 1 and one line, with TMPDIR, before anything is booted",
        small_disk,
    ),
    (
        "run.a_guest_that_reboots_has_no_verdict",
        "`reboot -f` is not taken for a back end that left",
        reboot,
    ),
    (
        "run.the_terminals_size_follows",
        "`stty size` in the guest after the user's window has changed",
        terminal_size,
    ),
    (
        "run.a_tree_needs_no_sys_admin",
        "root without CAP_SYS_ADMIN, as containers have it; needs root",
        without_sys_admin,
    ),
];

/// `coax` with arguments, in a folder of its own for what it writes.
struct Call {
    folder: tempfile::TempDir,
    command: Command,
}

impl Call {
    /// `coax` itself.
    fn new(which: &Which, args: &[&str]) -> Result<Self> {
        Self::by(which, &[], LIMIT_SECONDS, args)
    }

    /// `coax`, started by another program with these arguments before it, and so many seconds for its VM.
    fn by(which: &Which, starter: &[&str], limit: &str, args: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("A temporary folder")?;
        let coax = std::env::current_exe().context("Where this program is")?;
        let mut command = match starter.split_first() {
            None => Command::new(coax),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(coax);
                command
            }
        };
        let errors = File::create(folder.path().join("errors")).context("A file for errors")?;
        let (sub_command, rest) = args.split_first().context("A sub-command")?;
        command.arg(sub_command).args(["--timeout", limit]);
        command.args(which.words());
        command.args(rest).stdin(Stdio::null()).stderr(errors);
        Ok(Call { folder, command })
    }

    fn start(&mut self) -> Result<Group> {
        let group = Group::start(&mut self.command, Signal::SIGTERM).context("Starting coax")?;
        // Its ends of pipes are closed with the command that holds them.
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(group)
    }

    fn errors(&self) -> Result<String> {
        let errors = fs::read(self.folder.path().join("errors")).context("Reading the errors")?;
        Ok(String::from_utf8_lossy(&errors).into_owned())
    }

    /// The status, and that it came in time.
    fn ended(&self, group: &mut Group) -> Result<ExitStatus> {
        let status = group.wait_at_most(LIMIT).context("Waiting for coax")?;
        status.with_context(|| format!("It did not end within {LIMIT:?}\n{}", self.problem()))
    }

    fn problem(&self) -> String {
        self.errors().unwrap_or_else(|error| format!("{error:#}"))
    }

    fn succeeds(&self, group: &mut Group) -> Result<()> {
        let status = self.ended(group)?;
        ensure!(status.success(), "{status}\n{}", self.problem());
        Ok(())
    }
}

/// A pipe whose ends no child gets by chance.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).context("Making a pipe")
}

fn without_blocking(end: impl AsFd) -> Result<()> {
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(drop)
        .context("Setting O_NONBLOCK")
}

fn output_to_a_pipe_that_does_not_block(which: &Which) -> Result<()> {
    let (reader, writer) = pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).context("Making the pipe small")?;
    without_blocking(&writer)?;
    let mut call = Call::new(which, &["run", "--", "seq", "1", "200000"])?;
    call.command.stdout(writer);
    let mut group = call.start()?;
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text)?;
    call.succeeds(&mut group)?;
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    ensure!(
        text == wanted,
        "{} of {} bytes came",
        text.len(),
        wanted.len()
    );
    Ok(())
}

fn input_from_a_pipe_that_does_not_block(which: &Which) -> Result<()> {
    let (reader, writer) = pipe()?;
    without_blocking(&reader)?;
    let mut call = Call::new(which, &["run", "--", "sh", "-c", "echo ready; wc -c"])?;
    call.command.stdin(reader).stdout(Stdio::piped());
    let mut group = call.start()?;
    let mut output = output_of(&mut group)?;
    expect_line(&mut output, "ready")?;
    File::from(writer).write_all(&[b'x'; 160_000])?;
    expect_line(&mut output, "160000")?;
    call.succeeds(&mut group)
}

fn output_of(group: &mut Group) -> Result<BufReader<impl Read>> {
    let output = group.child().stdout.take();
    Ok(BufReader::new(output.context("It has no output")?))
}

fn expect_line(output: &mut impl BufRead, wanted: &str) -> Result<()> {
    let mut line = String::new();
    output.read_line(&mut line).context("Reading a line")?;
    ensure!(line.trim_end() == wanted, "{line:?} instead of {wanted:?}");
    Ok(())
}

fn a_limit_holds(which: &Which) -> Result<()> {
    let (_reader, writer) = pipe()?;
    let mut call = Call::by(which, &[], "40", &["run", "--", "cat", "/dev/zero"])?;
    call.command.stdout(writer);
    let mut group = call.start()?;
    let status = format!("/proc/{}/status", group.child().id());
    let begin = Instant::now();
    let mut most = 0;
    let ended = loop {
        most = most.max(peak_kib(Path::new(&status)).unwrap_or(0));
        if let Some(ended) = group.wait_at_most(Duration::from_millis(100))? {
            break ended;
        }
        ensure!(begin.elapsed() < LIMIT, "The limit of 40 s does not hold");
    };
    let errors = call.errors()?;
    ensure!(ended.code() == Some(1), "{ended}\n{errors}");
    ensure!(errors.contains("was not done after 40s"), "{errors}");
    ensure!((1..MEMORY_KIB).contains(&most), "coax took {most} KiB");
    Ok(())
}

/// The most memory that a process had in use.
fn peak_kib(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn ends_with_its_reader(which: &Which) -> Result<()> {
    let mut call = Call::new(which, &["run", "--", "yes"])?;
    call.command.stdout(Stdio::piped());
    let mut group = call.start()?;
    let mut output = output_of(&mut group)?;
    expect_line(&mut output, "y")?;
    drop(output);
    let status = call.ended(&mut group)?;
    let errors = call.errors()?;
    ensure!(
        status.signal() == Some(Signal::SIGPIPE as i32),
        "{status}\n{errors}"
    );
    Ok(())
}

fn lost_output(which: &Which) -> Result<()> {
    let mut call = Call::new(which, &["run", "--", "sh", "-c", "echo hi; sleep 1000"])?;
    let full = File::options().write(true).open("/dev/full")?;
    call.command.stdout(full);
    let mut group = call.start()?;
    let status = call.ended(&mut group)?;
    let errors = call.errors()?;
    let last = errors.lines().last().unwrap_or_default();
    ensure!(status.code() == Some(1), "{status}\n{errors}");
    ensure!(
        last.starts_with("coax: ") && last.contains("No space left on device"),
        "{errors}"
    );
    Ok(())
}

fn ignored_signals(which: &Which) -> Result<()> {
    let ignoring = ["sh", "-c", "trap '' HUP CHLD; exec \"$@\"", "sh"];
    let job = ["run", "--", "sh", "-c", "echo ready; cat; exit 3"];
    let mut call = Call::by(which, &ignoring, LIMIT_SECONDS, &job)?;
    call.command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut group = call.start()?;
    let mut output = output_of(&mut group)?;
    expect_line(&mut output, "ready")?;
    group.signal(Signal::SIGHUP);
    let input = group.child().stdin.take();
    input
        .context("It has no input")?
        .write_all(b"still here\n")?;
    expect_line(&mut output, "still here")?;
    let status = call.ended(&mut group)?;
    ensure!(status.code() == Some(3), "{status}\n{}", call.errors()?);
    Ok(())
}

fn long_folder(which: &Which) -> Result<()> {
    let mut call = Call::new(which, &["run", "--", "true"])?;
    let long: PathBuf = call.folder.path().join("x".repeat(150));
    fs::create_dir(&long).context("A folder with a long name")?;
    call.command.env("TMPDIR", &long);
    let mut group = call.start()?;
    call.succeeds(&mut group)?;
    let left = fs::read_dir(&long)?.count();
    ensure!(left == 0, "{left} files are left in the folder");
    Ok(())
}

fn small_disk(which: &Which) -> Result<()> {
    // A tenth of a VM's root file system, in namespaces that end with the call.
    let script = "mount -t tmpfs -o size=5m disk \"$TMPDIR\" && exec \"$@\"";
    let starter = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
    ];
    let mut call = Call::by(which, &starter, LIMIT_SECONDS, &["run", "--", "true"])?;
    let disk = call.folder.path().join("disk");
    fs::create_dir(&disk).context("A folder for the disk")?;
    call.command.env("TMPDIR", &disk);
    let mut group = call.start()?;
    let status = call.ended(&mut group)?;
    let errors = call.errors()?;
    ensure!(status.code() == Some(1), "{status}\n{errors}");
    let last = errors.lines().last().unwrap_or_default();
    for part in ["coax: Cannot prepare", "No space left on device", "TMPDIR"] {
        ensure!(
            last.contains(part),
            "no {part} in the last line of\n{errors}"
        );
    }
    Ok(())
}

fn reboot(which: &Which) -> Result<()> {
    let mut call = Call::new(which, &["run", "--", "reboot", "-f"])?;
    let mut group = call.start()?;
    let status = call.ended(&mut group)?;
    let errors = call.errors()?;
    ensure!(status.code() == Some(1), "{status}\n{errors}");
    ensure!(
        errors.contains("the VM ended without a verdict of its job"),
        "{errors}"
    );
    Ok(())
}

fn terminal_size(which: &Which) -> Result<()> {
    let terminal = openpty(None, None).context("Opening a terminal")?;
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("Setting FD_CLOEXEC")?;
    }
    resize(&terminal.master, 30, 100)?;
    // A session of its own, whose terminal this is.
    let mut call = Call::by(
        which,
        &["setsid", "--ctty", "--wait"],
        LIMIT_SECONDS,
        &["run"],
    )?;
    call.command
        .stdin(terminal.slave.try_clone()?)
        .stdout(terminal.slave);
    let mut group = call.start()?;
    let mut typed = File::from(terminal.master.try_clone()?);
    let mut shown = BufReader::new(File::from(terminal.master.try_clone()?));
    writeln!(typed, "stty size")?;
    until_shown(&mut shown, "30 100")?;
    resize(&terminal.master, 50, 170)?;
    // What is typed is shown too, so it must not be what is waited for.
    writeln!(typed, "until stty size | grep '5[0] 1[7]0'; do :; done")?;
    until_shown(&mut shown, "50 170")?;
    writeln!(typed, "exit 3")?;
    // Its end is an error of the terminal; what nobody reads would hold it up.
    let _ = std::io::copy(&mut shown, &mut std::io::sink());
    let status = call.ended(&mut group)?;
    ensure!(status.code() == Some(3), "{status}\n{}", call.errors()?);
    Ok(())
}

fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("Changing the terminal's size")
}

/// Reads until a line with this.
fn until_shown(shown: &mut impl BufRead, wanted: &str) -> Result<()> {
    let mut line = String::new();
    let mut all = String::new();
    // The end of who writes is the error EIO.
    while shown.read_line(&mut line).unwrap_or(0) > 0 {
        if line.contains(wanted) {
            return Ok(());
        }
        all.push_str(&line);
        line.clear();
    }
    anyhow::bail!("no {wanted} on the terminal, but {all}")
}

fn without_sys_admin(which: &Which) -> Result<()> {
    if !Uid::effective().is_root() || tool::find("setpriv").is_none() {
        return Ok(());
    }
    let starter = ["setpriv", "--bounding-set", "-sys_admin"];
    let mut call = Call::by(
        which,
        &starter,
        LIMIT_SECONDS,
        &["run", "--root", ".", "--", "cat", "/file"],
    )?;
    fs::write(call.folder.path().join("file"), "as it was\n")?;
    call.command
        .current_dir(call.folder.path())
        .stdout(Stdio::piped());
    let mut group = call.start()?;
    let mut output = output_of(&mut group)?;
    let shown = expect_line(&mut output, "as it was");
    call.succeeds(&mut group)?;
    shown
}

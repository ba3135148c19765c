// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the job with its input and output connected to the host.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use coax_images::frames::{read_frame, write_frame, Kind};
use coax_images::job::{Exit, Job, TerminalSize};
use coax_program::errln;
use nix::pty::{openpty, Winsize};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{wait, WaitOptions};

const PATH: &str = "/bin";
/// Where programs of a tree of the host are, and behind them those that came with the guest.
const TREE_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/coax/bin";
const BUSYBOX: &str = "/bin/busybox";
const TREE_BUSYBOX: &str = "/run/coax/bin/busybox";
const RELAY_BYTES: usize = 32 << 10;

/// The port to the host; clones share it.
#[derive(Clone)]
pub struct Port {
    path: PathBuf,
    writer: Arc<Mutex<File>>,
}

impl Port {
    /// Opens the port.
    pub fn open(path: &Path) -> Result<Self> {
        // A port can be opened only once; both directions share the file.
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.with_context(|| format!("Cannot open {}", path.display()))?;
        Ok(Port {
            path: path.to_path_buf(),
            writer: Arc::new(Mutex::new(file)),
        })
    }

    /// Sends a frame; the first one waits for the host.
    pub fn send(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *writer, kind, payload)
            .with_context(|| format!("Cannot write to {}", self.path.display()))
    }

    /// Reads the host's frames in a thread of its own: input goes to `stdin`, and the receiver
    /// gets a message when the host is done. The host must be connected.
    pub fn listen(&self, mut stdin: Option<File>) -> Result<Receiver<()>> {
        let mut reader = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.try_clone().context("Cannot share the port")?
        };
        let (sender, receiver) = mpsc::channel();
        spawn("input", move || {
            while let Ok(Some(frame)) = read_frame(&mut reader) {
                match frame.kind {
                    Kind::Stdin => {
                        let written = stdin.as_mut().map(|file| file.write_all(&frame.payload));
                        // When the job has closed its input, the rest is for nobody.
                        stdin = stdin.filter(|_| matches!(written, Some(Ok(()))));
                    }
                    Kind::StdinEnd => stdin = None,
                    Kind::Resize => resize(stdin.as_ref(), &frame.payload),
                    Kind::Done => {
                        let _ = sender.send(());
                        return;
                    }
                    Kind::Start | Kind::Stdout | Kind::Stderr | Kind::Exit => {}
                }
            }
        })?;
        Ok(receiver)
    }
}

/// Gives the job's terminal another size; a job on pipes has none.
fn resize(terminal: Option<&File>, payload: &[u8]) {
    let size = serde_json::from_slice(payload).map(|size: TerminalSize| rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    });
    if let (Some(terminal), Ok(size)) = (terminal, size) {
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

/// A job and what connects it.
struct Running {
    child: Child,
    stdin: Option<File>,
    outputs: Vec<(Kind, File)>,
}

/// Runs the job to its end, with a tree of the host as root file system if `tree` says so; the
/// receiver, which comes with a job that ran, tells when the host is done.
///
/// # Errors
///
/// The job could not be started, for another reason than its program.
pub fn run(job: &Job, tree: bool, port: &Port) -> Result<(Exit, Option<Receiver<()>>)> {
    let started = match job.terminal {
        Some(size) => start_on_terminal(job, tree, size),
        None => start_on_pipes(job, tree),
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => return Ok((no_program(job, tree, error)?, None)),
    };
    port.send(Kind::Start, b"")?;
    let relays = running
        .outputs
        .into_iter()
        .map(|(kind, file)| relay(kind, file, port.clone()))
        .collect::<Result<Vec<_>>>()?;
    let done = port.listen(running.stdin)?;

    let exit = reap_until(running.child.id())?;
    // Whatever the job left behind would hold its output open.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    for relay in relays {
        // A relay that panicked has said so on the console.
        let _ = relay.join();
    }
    reap_all();
    Ok((exit, Some(done)))
}

/// What to tell of a program that the kernel did not start.
fn no_program(job: &Job, tree: bool, error: anyhow::Error) -> Result<Exit> {
    let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let program = job.argv.first().map(OsString::as_os_str);
    let program = program.unwrap_or_default().to_string_lossy();
    let place = if tree { "in the tree" } else { "in the guest" };
    let (reason, found) = match cause {
        Some(io::ErrorKind::NotFound) if program.contains('/') => (
            format!("there is no {program} {place}, or what it needs to start is not there"),
            false,
        ),
        Some(io::ErrorKind::NotFound) => {
            let asked = job.env.iter().rev().find(|(name, _)| name == "PATH");
            let path = asked.map_or(own_path(tree).into(), |(_, path)| path.to_string_lossy());
            (
                format!("there is no program {program} {place}, in none of {path}"),
                false,
            )
        }
        Some(_) => (format!("cannot run {program}: {error:#}"), true),
        None => return Err(error.context(format!("Cannot start {program}"))),
    };
    Ok(Exit::NoProgram { reason, found })
}

fn own_path(tree: bool) -> &'static str {
    if tree {
        TREE_PATH
    } else {
        PATH
    }
}

fn start_on_pipes(job: &Job, tree: bool) -> Result<Running> {
    let mut child = command(job, tree, &[])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take().map(OwnedFd::from).map(File::from);
    let stdout = child.stdout.take().map(OwnedFd::from).map(File::from);
    let stderr = child.stderr.take().map(OwnedFd::from).map(File::from);
    let outputs = [(Kind::Stdout, stdout), (Kind::Stderr, stderr)];
    let outputs = outputs
        .into_iter()
        .filter_map(|(kind, file)| Some((kind, file?)))
        .collect();
    Ok(Running {
        child,
        stdin,
        outputs,
    })
}

fn start_on_terminal(job: &Job, tree: bool, size: TerminalSize) -> Result<Running> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).context("Cannot open a terminal")?;
    // A session of its own with this terminal, so that keys become signals.
    let busybox = if tree { TREE_BUSYBOX } else { BUSYBOX };
    let child = command(job, tree, &[busybox, "setsid", "-c"])?
        .stdin(pty.slave.try_clone()?)
        .stdout(pty.slave.try_clone()?)
        .stderr(pty.slave)
        .spawn()?;
    let master = File::from(pty.master);
    Ok(Running {
        child,
        stdin: Some(master.try_clone()?),
        outputs: vec![(Kind::Stdout, master)],
    })
}

/// The job's command line after the words in `prefix`.
fn command(job: &Job, tree: bool, prefix: &[&str]) -> Result<Command> {
    let mut words = prefix
        .iter()
        .map(OsStr::new)
        .chain(job.argv.iter().map(OsString::as_os_str));
    let program = words.next().context("The job has no program")?;
    let mut command = Command::new(program);
    let directory = match job.directory.as_deref().map(Path::new) {
        None => Path::new("/root"),
        Some(directory) if directory.is_dir() => directory,
        Some(_) => Path::new("/"),
    };
    command.args(words).current_dir(directory).env_clear();
    command.envs([
        ("PATH", own_path(tree)),
        ("HOME", "/root"),
        ("TERM", "linux"),
    ]);
    command.envs(job.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Sends what the job writes.
fn relay(kind: Kind, mut file: File, port: Port) -> Result<JoinHandle<()>> {
    spawn("relay", move || {
        let mut buffer = vec![0; RELAY_BYTES];
        loop {
            let length = match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A terminal's end is the error EIO.
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            if let Err(error) = port.send(kind, buffer.get(..length).unwrap_or_default()) {
                errln!("coax-init: {error:#}");
                return;
            }
        }
    })
}

/// The first process inherits all orphans; it waits for them, however they end, until `job` ends.
fn reap_until(job: u32) -> Result<Exit> {
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("Cannot wait for the job"),
        };
        if pid.as_raw_pid().unsigned_abs() != job {
            continue;
        }
        let code = status.exit_status().map(Exit::Code);
        let signal = || status.terminating_signal().map(Exit::Signal);
        if let Some(exit) = code.or_else(signal) {
            return Ok(exit);
        }
    }
}

/// Waits for all that were killed.
fn reap_all() {
    while matches!(wait(WaitOptions::empty()), Ok(_) | Err(Errno::INTR)) {}
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(body);
    thread.context("Cannot start a thread")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coax_images::job::OWN_ROOT;

    #[test]
    fn own_programs_are_found_in_a_tree_and_come_last() {
        assert!(TREE_PATH.ends_with(&format!(":{OWN_ROOT}{PATH}")));
        assert_eq!(TREE_BUSYBOX, format!("{OWN_ROOT}{BUSYBOX}"));
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_cannot_be_run() {
        let job = Job::new(["prog"]).env("PATH", "/a:/b");
        let exit = |kind| no_program(&job, true, io::Error::from(kind).into()).expect("a verdict");
        let Exit::NoProgram { reason, found } = exit(io::ErrorKind::NotFound) else {
            panic!("another verdict");
        };
        assert!(
            !found && reason.contains("prog") && reason.contains("/a:/b"),
            "{reason}"
        );
        let refused = exit(io::ErrorKind::PermissionDenied);
        assert!(matches!(refused, Exit::NoProgram { found: true, .. }));
        assert!(no_program(&job, true, anyhow::anyhow!("no terminal")).is_err());
    }
}

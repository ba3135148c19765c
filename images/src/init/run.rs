// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the job with its input and output connected to the host.

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
use nix::errno::Errno;
use nix::pty::{openpty, Winsize};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;

const PATH: &str = "/bin";
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

/// A job and what connects it.
struct Running {
    child: Child,
    stdin: Option<File>,
    outputs: Vec<(Kind, File)>,
}

/// Runs the job to its end; the receiver tells when the host is done.
///
/// # Errors
///
/// The job could not be started.
pub fn run(job: &Job, port: &Port) -> Result<(Exit, Receiver<()>)> {
    let running = match job.terminal {
        Some(size) => start_on_terminal(job, size),
        None => start_on_pipes(job),
    };
    let running = running.with_context(|| format!("Cannot start {}", job.argv.join(" ")))?;
    port.send(Kind::Start, b"")?;
    let relays = running
        .outputs
        .into_iter()
        .map(|(kind, file)| relay(kind, file, port.clone()))
        .collect::<Result<Vec<_>>>()?;
    let done = port.listen(running.stdin)?;

    let exit = reap_until(Pid::from_raw(i32::try_from(running.child.id())?))?;
    // Whatever the job left behind would hold its output open.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    for relay in relays {
        // A relay that panicked has said so on the console.
        let _ = relay.join();
    }
    reap_all();
    Ok((exit, done))
}

fn start_on_pipes(job: &Job) -> Result<Running> {
    let mut child = command(job, &[])?
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

fn start_on_terminal(job: &Job, size: TerminalSize) -> Result<Running> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).context("Cannot open a terminal")?;
    // A session of its own with this terminal, so that keys become signals.
    let child = command(job, &["busybox", "setsid", "-c"])?
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
fn command(job: &Job, prefix: &[&str]) -> Result<Command> {
    let mut words = prefix
        .iter()
        .copied()
        .chain(job.argv.iter().map(String::as_str));
    let program = words.next().context("The job has no program")?;
    let mut command = Command::new(program);
    command.args(words).current_dir("/root").env_clear();
    command.envs([("PATH", PATH), ("HOME", "/root"), ("TERM", "linux")]);
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
                eprintln!("coax-init: {error:#}");
                return;
            }
        }
    })
}

/// The first process inherits all orphans; it waits for them until `job` ends.
fn reap_until(job: Pid) -> Result<Exit> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == job => return Ok(Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == job => {
                return Ok(Exit::Signal(signal as i32))
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("Cannot wait for the job"),
        }
    }
}

/// Waits for all that were killed.
fn reap_all() {
    while matches!(waitpid(None, None), Ok(_) | Err(Errno::EINTR)) {}
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(body);
    thread.context("Cannot start a thread")
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One VM from its start to its verdict.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::back_end::BackEnd;
use super::channel::{self, Event};
use super::config::{Output, VmConfig};
use super::console::{complaint, fatal};
use super::evidence::{Evidence, Failure, LaunchError, Outcome};
use super::monitor::Monitor;
use super::qemu_args::{self, Sockets};
use super::record::{judge, Record, PEER_END_LIMIT, POWER_OFF_LIMIT};
use super::terminal::RawMode;
use crate::accel::{self, Accel};
use crate::frames::{write_frame, Frame, Kind};
use crate::images::Images;
use crate::initramfs;
use crate::job::{Exit, Job, JobFile};
use crate::process::Group;
use crate::temporary::TemporaryFolder;

/// From a fatal console line to the end of the VM: time for the trace that follows it.
const FATAL_LIMIT: Duration = Duration::from_secs(5);
/// From the stop of the devices to that of the guest.
const STOP_LAG: Duration = Duration::from_millis(200);
/// How often a back end that ended too early is looked for.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A running VM; dropping it kills it. The thread that started it must live as long.
#[derive(Debug)]
pub struct Vm {
    // Dropped in this order: QEMU first, so that the back ends see their front end leave.
    qemu: Group,
    devices: Vec<BackEnd>,
    tree: Option<BackEnd>,
    folder: TemporaryFolder,
    events: Receiver<Event>,
    sender: Sender<Event>,
    output: Output,
    terminal: bool,
    raw_mode: Option<RawMode>,
    accel: Accel,
    started: Instant,
    deadline: Option<Instant>,
    timeout: Option<Duration>,
    config: VmConfig,
    /// Times that the first device was plugged in.
    plugged: u32,
    record: Record,
}

/// What can be done to a running VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Kill the back ends, as a crash would. Their end is then no failure.
    KillDevice,
    /// Stop the back ends, and the guest not, until they are to go on.
    StopDevice,
    /// Have the back ends go on.
    ContinueDevice,
    /// Ask the guest to let the first device go.
    UnplugDevice,
    /// Plug in another in its place, with a back end started anew.
    PlugDevice,
    /// Stop devices and guest for so long, as a host that suspends does.
    Stop(Duration),
}

impl Vm {
    /// Starts back ends and QEMU, which runs `job`.
    ///
    /// # Errors
    ///
    /// [`LaunchError::NoKvm`], [`LaunchError::Prepare`], [`LaunchError::Start`].
    pub fn start(images: &Images, config: &VmConfig, job: &Job) -> Result<Self, LaunchError> {
        let accel = accel::decide(config.accel)
            .map_err(LaunchError::NoKvm)?
            .accel;
        let folder = prepare("a folder", TemporaryFolder::new)?;
        let path = |name: &str| folder.path().join(name);
        let job_socket = path("job.sock");
        let initramfs_path = path("initramfs.cpio");

        let file = JobFile {
            job: job.clone(),
            driver: config.driver(),
            tree: config.tree.is_some(),
        };
        prepare("the initramfs", || {
            initramfs::with_job(&images.initramfs, &initramfs_path, &file, &config.files)
        })?;
        let job_listener = prepare("the job's socket", || UnixListener::bind(&job_socket))?;
        let qemu_log = prepare("QEMU's log", || File::create(path("qemu.log")))?;

        let started = Instant::now();
        let devices = BackEnd::of_devices(images, config, folder.path())?;
        let tree = config.tree.as_ref();
        let tree = tree
            .map(|tree| BackEnd::of_tree(tree, folder.path()))
            .transpose()?;
        let sockets = Sockets {
            devices: devices.iter().map(BackEnd::socket).collect(),
            tree: tree.as_ref().map(BackEnd::socket),
            job: &job_socket,
            monitor: &path("monitor.sock"),
            initramfs: &initramfs_path,
        };
        let args = qemu_args::qemu(images, config, accel, &sockets);
        let command_line = qemu_args::shell_line(&images.qemu, &args);
        let mut qemu = start(
            &images.qemu,
            Command::new(&images.qemu)
                .args(&args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(qemu_log),
        )?;

        let (sender, events) = mpsc::channel();
        if let Some(console) = qemu.child().stdout.take() {
            prepare("a thread", || {
                channel::watch_console(console, sender.clone())
            })?;
        }
        prepare("a thread", || {
            channel::watch_frames(job_listener, sender.clone())
        })?;

        let terminal = job.terminal.is_some();
        let raw_mode = match (config.output, terminal) {
            (Output::Interactive, true) => prepare("the terminal", RawMode::enter)?,
            _ => None,
        };
        let evidence = Evidence {
            command_line,
            ..Evidence::default()
        };
        Ok(Vm {
            qemu,
            devices,
            tree,
            folder,
            events,
            sender,
            output: config.output,
            terminal,
            raw_mode,
            accel,
            started,
            deadline: config.timeout.map(|limit| started + limit),
            timeout: config.timeout,
            config: config.clone(),
            plugged: 0,
            record: Record::new(evidence),
        })
    }

    /// Waits until everything has ended.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Failed`] when the VM did not end well, whatever its job did.
    pub fn wait(self) -> Result<Outcome, LaunchError> {
        self.wait_watching(|_| None)
    }

    /// Process numbers of the devices' back ends.
    pub fn device_ids(&mut self) -> Vec<u32> {
        self.devices.iter_mut().map(BackEnd::id).collect()
    }

    /// As [`Vm::wait`], and `watch` sees each line of standard output as it comes and may have
    /// something done.
    ///
    /// # Errors
    ///
    /// Those of [`Vm::wait`].
    pub fn wait_watching(
        mut self,
        mut watch: impl FnMut(&str) -> Option<Action>,
    ) -> Result<Outcome, LaunchError> {
        while !(self.record.console_ended && self.record.channel_ended) {
            let now = Instant::now();
            let left = self
                .deadline
                .map_or(CHECK_INTERVAL, |end| end.duration_since(now));
            if left.is_zero() {
                self.record.timed_out = self.record.complaint.is_none();
                break;
            }
            match self.events.recv_timeout(left.min(CHECK_INTERVAL)) {
                Ok(event) => {
                    self.handle(event);
                    while let Some(action) = self.record.next_line().map(|line| watch(&line)) {
                        self.act(action);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.record.escaped {
                break;
            }
            self.check_back_ends();
        }
        self.raw_mode = None;
        self.finish()
    }

    /// Takes note of one event.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Console(line) => self.console_line(&line),
            Event::ConsoleEnd => {
                self.record.console_ended = true;
                // A QEMU that never connected leaves a thread in accept(2).
                let _ = UnixStream::connect(self.folder.path().join("job.sock"));
            }
            Event::Connected(stream) => self.record.guest = Some(stream),
            Event::Frame(frame) => self.frame(frame),
            Event::ChannelEnd(error) => {
                self.record.channel_ended = true;
                self.record.channel_error = error;
            }
            Event::Escape => self.record.escaped = true,
        }
    }

    fn console_line(&mut self, line: &str) {
        self.record.evidence.console.push_str(line);
        self.record.evidence.console.push('\n');
        if complaint(line) && self.record.complaint.is_none() {
            self.record.complaint = Some(line.to_owned());
        }
        if fatal(line) {
            self.end_within(FATAL_LIMIT);
        }
    }

    fn frame(&mut self, frame: Frame) {
        let live = self.output == Output::Interactive;
        match frame.kind {
            Kind::Start => {
                self.record.boot = Some(self.started.elapsed());
                self.start_input();
            }
            // Kept, the output of a session of hours would only fill the memory.
            Kind::Stdout if live => show(io::stdout().lock(), &frame.payload),
            Kind::Stderr if live => show(io::stderr().lock(), &frame.payload),
            Kind::Stdout => self.record.stdout.extend(frame.payload),
            Kind::Stderr => self.record.stderr.extend(frame.payload),
            Kind::Exit => {
                match serde_json::from_slice(&frame.payload) {
                    Ok(exit) => self.record.exit = Some(exit),
                    Err(error) => self.record.channel_error = Some(error.into()),
                }
                self.send(Kind::Done);
                self.end_within(POWER_OFF_LIMIT);
            }
            // Host to guest only; a guest that sends them is not ours.
            Kind::Stdin | Kind::StdinEnd | Kind::Done => {
                let text = format!("the guest sent a {:?} frame", frame.kind);
                self.record.channel_error = Some(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }

    fn act(&mut self, action: Option<Action>) {
        match action {
            Some(Action::KillDevice) => {
                self.record.devices_killed = true;
                self.signal_devices(Signal::SIGKILL);
            }
            Some(Action::StopDevice) => self.signal_devices(Signal::SIGSTOP),
            Some(Action::ContinueDevice) => self.signal_devices(Signal::SIGCONT),
            Some(Action::UnplugDevice) => self.try_hard(Self::unplug),
            Some(Action::PlugDevice) => self.try_hard(Self::plug),
            Some(Action::Stop(time)) => {
                // First the devices: what the guest asks of them now has no answer when it stops.
                self.signal_devices(Signal::SIGSTOP);
                thread::sleep(STOP_LAG);
                self.qemu.signal(Signal::SIGSTOP);
                thread::sleep(time);
                self.signal_devices(Signal::SIGCONT);
                self.qemu.signal(Signal::SIGCONT);
            }
            None => {}
        }
    }

    fn signal_devices(&self, signal: Signal) {
        self.devices.iter().for_each(|device| device.signal(signal));
    }

    /// Does something to the VM's hardware; ends the VM if that fails.
    fn try_hard(&mut self, what: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = what(self) {
            self.record.monitor_error = Some(error);
            self.end_within(Duration::ZERO);
        }
    }

    fn monitor(&self) -> io::Result<Monitor> {
        Monitor::connect(&self.folder.path().join("monitor.sock"))
    }

    fn unplug(&mut self) -> io::Result<()> {
        let device = qemu_args::device_id(0);
        self.monitor()?.run(&format!("device_del {device}"))
    }

    /// A connection serves one life of a device: a back end ends with it.
    fn plug(&mut self) -> io::Result<()> {
        let mut monitor = self.monitor()?;
        let begin = Instant::now();
        let left = qemu_args::connection_id(0, self.plugged);
        // The guest sees the device go before QEMU has let go of it.
        while let Err(error) = monitor.run(&format!("chardev-remove {left}")) {
            if begin.elapsed() > PEER_END_LIMIT {
                return Err(error);
            }
            thread::sleep(CHECK_INTERVAL);
        }
        let device = self.devices.first_mut();
        let device = device.ok_or_else(|| io::Error::other("the VM has no device"))?;
        device.start_again()?;
        // QEMU remembers the name of a connection of its command line beyond its end.
        self.plugged += 1;
        let connection = qemu_args::connection_id(0, self.plugged);
        let options = qemu_args::socket_chardev(&connection, device.socket());
        monitor.run(&format!("chardev-add {options}"))?;
        let device = qemu_args::device_properties(&self.config, 0, &connection);
        monitor.run(&format!("device_add {device}"))
    }

    /// Connects standard input, or closes the job's.
    fn start_input(&mut self) {
        if self.output != Output::Interactive {
            return self.send(Kind::StdinEnd);
        }
        let Some(guest) = &self.record.guest else {
            return;
        };
        let escape = self.terminal && self.raw_mode.is_some();
        let started = guest
            .try_clone()
            .and_then(|guest| channel::forward_input(guest, escape, self.sender.clone()));
        if let Err(error) = started {
            self.record.channel_error = Some(error);
        }
    }

    fn send(&mut self, kind: Kind) {
        if let Some(guest) = &mut self.record.guest {
            // A guest that has gone is seen at the other end of the stream.
            let _ = write_frame(guest, kind, b"");
        }
    }

    /// Brings the deadline forward.
    fn end_within(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        self.deadline = Some(self.deadline.map_or(end, |deadline| deadline.min(end)));
    }

    /// A VM whose back end has gone is given time to say so, then ended.
    fn check_back_ends(&mut self) {
        if self.record.back_end_left.is_some() {
            return;
        }
        let left = self.answerable().find_map(|back_end| {
            let status = back_end.wait_at_most(Duration::ZERO).ok()??;
            Some((back_end.name().to_owned(), status))
        });
        if left.is_some() {
            self.record.back_end_left = left;
            self.end_within(PEER_END_LIMIT);
        }
    }

    /// The back ends whose end would be a failure: all that were not killed on purpose.
    fn answerable(&mut self) -> impl Iterator<Item = &mut BackEnd> {
        let killed = self.record.devices_killed;
        let devices = self.devices.iter_mut().filter(move |_| !killed);
        devices.chain(&mut self.tree)
    }

    /// Ends what still runs, and judges.
    fn finish(mut self) -> Result<Outcome, LaunchError> {
        if self.record.timed_out || self.record.escaped {
            self.qemu.signal(Signal::SIGKILL);
        }
        let prepare_wait = |source| LaunchError::Prepare {
            what: "waiting".into(),
            source,
        };
        let qemu_status = self
            .qemu
            .wait_at_most(PEER_END_LIMIT)
            .map_err(prepare_wait)?;
        if qemu_status.is_none() {
            self.qemu.signal(Signal::SIGKILL);
        }
        let back_ends = self
            .answerable()
            .map(|back_end| {
                let status = back_end.wait_at_most(PEER_END_LIMIT);
                Ok((back_end.name().to_owned(), status.map_err(prepare_wait)?))
            })
            .collect::<Result<Vec<_>, _>>()?;
        // What came while the others ended: the console's last lines above all.
        while let Ok(event) = self.events.try_recv() {
            self.handle(event);
        }

        let qemu_log = fs::read(self.folder.path().join("qemu.log")).unwrap_or_default();
        let mut record = self.record;
        let all = self.devices.iter().chain(&self.tree);
        record.evidence.back_ends = all.map(BackEnd::evidence).collect();
        record.evidence.qemu_log = String::from_utf8_lossy(&qemu_log).into_owned();
        record.evidence.stderr = String::from_utf8_lossy(&record.stderr).into_owned();
        if record.escaped {
            record.exit = Some(Exit::Signal(nix::libc::SIGHUP));
        }

        let failure = judge(&mut record, self.timeout, qemu_status, &back_ends);
        match (failure, record.exit) {
            (None, Some(exit)) => Ok(Outcome {
                exit,
                stdout: record.stdout,
                stderr: record.stderr,
                evidence: record.evidence,
                duration: self.started.elapsed(),
                boot: record.boot.unwrap_or_default(),
                accel: self.accel.name(),
            }),
            (failure, _) => Err(LaunchError::Failed {
                failure: failure.unwrap_or(Failure::NoVerdict),
                evidence: Box::new(record.evidence),
            }),
        }
    }
}

/// Output that nobody reads any more is no reason to fail.
fn show(mut stream: impl Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
}

/// Makes something that a VM needs.
pub fn prepare<T>(what: &str, make: impl FnOnce() -> io::Result<T>) -> Result<T, LaunchError> {
    make().map_err(|source| LaunchError::Prepare {
        what: what.to_owned(),
        source,
    })
}

/// Starts a program in a group of its own.
pub fn start(program: &Path, command: &mut Command) -> Result<Group, LaunchError> {
    Group::start(command, Signal::SIGKILL).map_err(|source| LaunchError::Start {
        program: program.display().to_string(),
        source,
    })
}

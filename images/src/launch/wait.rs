// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM's run from its start to its verdict.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use coax_program::output::OutputError;

use super::action::Action;
use super::back_end::BackEnd;
use super::config::Output;
use super::console::{complaint, fatal};
use super::ends::own;
use super::evidence::{tail_of, Failure, LaunchError, Outcome};
use super::flow::Event;
use super::record::{judge, CAPTURED_BYTES, PEER_END_LIMIT, POWER_OFF_LIMIT};
use super::terminal::{self, ESCAPE};
use super::vm::{Vm, QEMU_LOG};
use crate::frames::{Frame, Kind};
use crate::job::Exit;

/// From a fatal console line to the end of the VM: time for the trace that follows it.
const FATAL_LIMIT: Duration = Duration::from_secs(5);
/// From a VM's start to the first word of its kernel, on the kernel that is fastest: under TCG on an idle
/// machine it takes 2 s. A kernel that cannot start says nothing, and goes on for ever.
const FIRST_WORD_LIMIT: Duration = Duration::from_secs(180);
/// From a VM's end to that of its output, when there is another reason not to wait for its reader.
const REST_LIMIT: Duration = Duration::from_secs(1);

impl Vm {
    /// Waits until everything has ended.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Failed`] when the VM did not end well, whatever its job did, and
    /// [`LaunchError::Output`] and [`LaunchError::Input`] when only this program's own ends failed.
    pub fn wait(self) -> Result<Outcome, LaunchError> {
        self.wait_watching(|_| Ok(None))
    }

    /// As [`Vm::wait`], and `watch` sees each line of standard output as it comes and may have
    /// something done; when it cannot pass on what it saw, the VM is ended.
    ///
    /// # Errors
    ///
    /// Those of [`Vm::wait`].
    pub fn wait_watching(
        mut self,
        mut watch: impl FnMut(&str) -> Result<Option<Action>, OutputError>,
    ) -> Result<Outcome, LaunchError> {
        // What happened before anybody looked.
        self.handle(Event::Look);
        while !(self.record.is_over() || self.flow.has_ended() && self.flow.is_written()) {
            let now = Instant::now();
            self.take_due_steps(now);
            let limit = self.next_limit();
            if limit.is_some_and(|limit| limit <= now) {
                self.give_up(now);
                continue;
            }
            let limit = limit.map(|limit| limit.duration_since(now));
            for event in self.flow.wait(limit).map_err(waiting)? {
                self.handle(event);
            }
            while let Some(line) = self.record.next_line() {
                match watch(&line) {
                    Ok(action) => action.into_iter().for_each(|action| self.act(action)),
                    Err(error) => self.record.output_error = Some(error),
                }
            }
        }
        self.raw_mode = None;
        self.finish()
    }

    /// When the user's patience ends.
    fn user_limit(&self) -> Option<Instant> {
        self.config.timeout.map(|limit| self.started + limit)
    }

    /// When to look again if nothing happens.
    fn next_limit(&self) -> Option<Instant> {
        let end = self.end.map(|(end, _)| end);
        // The VM's own limit is met when it has ended; its output may take longer.
        let end = end.filter(|_| !self.flow.has_ended());
        let steps = self.steps.iter().map(|(time, _)| *time);
        let limits = end.into_iter().chain(self.user_limit());
        let limits = limits.chain(self.first_word_limit());
        steps.chain(limits).min()
    }

    /// When a kernel that has said nothing will not any more.
    fn first_word_limit(&self) -> Option<Instant> {
        (!self.record.heard).then(|| self.started + self.first_word_time())
    }

    fn first_word_time(&self) -> Duration {
        FIRST_WORD_LIMIT * self.time_factor
    }

    /// Gives up what is not done in time, unless it was only a step that is due.
    fn give_up(&mut self, now: Instant) {
        let user = self.config.timeout;
        let user = user.filter(|_| self.user_limit().is_some_and(|limit| limit <= now));
        let end = self.end.filter(|(end, _)| *end <= now);
        let silent = self.first_word_limit().filter(|limit| *limit <= now);
        let silent = silent.map(|_| self.first_word_time());
        if self.flow.has_ended() {
            if let Some(limit) = user {
                let text = format!("it was not read within {limit:?}");
                let error = io::Error::new(io::ErrorKind::TimedOut, text);
                self.record.output_error = Some(OutputError::stdout(error));
            }
        } else if let Some(limit) = end.map(|(_, limit)| limit).or(user).or(silent) {
            self.record.timed_out = Some(limit);
        }
    }

    /// Takes note of one event.
    fn handle(&mut self, event: Event) {
        self.record.heard |= matches!(event, Event::Console(_) | Event::Frame(_));
        match event {
            Event::Console(line) => self.console_line(&line),
            Event::ConsoleEnd => {}
            Event::Frame(frame) => self.frame(frame),
            Event::ChannelEnd(error) => self.record.channel_error = error,
            Event::Input(bytes) => self.input(&bytes),
            Event::InputError(error) => self.record.input_error = Some(error),
            Event::OutputError(error) => self.record.output_error = Some(error),
            Event::Look => {
                self.check_back_ends();
                self.pass_size_on();
            }
        }
    }

    fn console_line(&mut self, line: &str) {
        self.record.console.push(line);
        if complaint(line) && self.record.complaint.is_none() {
            self.record.complaint = Some(line.to_owned());
        }
        if fatal(line) {
            self.end_within(FATAL_LIMIT);
        }
    }

    fn frame(&mut self, frame: Frame) {
        match frame.kind {
            Kind::Start => {
                self.record.boot = Some(self.started.elapsed());
                self.initramfs = None;
                self.start_input();
                self.pass_size_on();
            }
            Kind::Stdout => self.record.stdout.extend(frame.payload),
            Kind::Stderr => self.record.stderr.extend(frame.payload),
            Kind::Exit => {
                match serde_json::from_slice(&frame.payload) {
                    Ok(exit) => self.record.exit = Some(exit),
                    Err(error) => self.record.channel_error = Some(error.into()),
                }
                self.flow.send(Kind::Done, b"");
                self.end_within(POWER_OFF_LIMIT);
            }
            // Host to guest only; a guest that sends them is not ours.
            Kind::Stdin | Kind::StdinEnd | Kind::Done | Kind::Resize => {
                let text = format!("the guest sent a {:?} frame", frame.kind);
                self.record.channel_error = Some(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        if self.record.stdout.len() + self.record.stderr.len() > CAPTURED_BYTES {
            self.record.too_much_output = true;
        }
    }

    /// Connects standard input, or closes the job's.
    fn start_input(&mut self) {
        let input = match self.config.output {
            Output::Capture => {
                self.flow.send(Kind::StdinEnd, b"");
                return;
            }
            Output::Interactive => own(io::stdin()).and_then(|stdin| self.flow.read_input(stdin)),
        };
        self.record.input_error = input.err();
    }

    fn input(&mut self, bytes: &[u8]) {
        if self.terminal.is_some() && bytes.contains(&ESCAPE) {
            self.record.escaped = true;
        } else {
            self.flow.send(Kind::Stdin, bytes);
        }
    }

    /// Tells the job's terminal the size of the user's, if that has changed.
    fn pass_size_on(&mut self) {
        let now = terminal::size();
        if self.record.boot.is_none() || self.terminal.is_none() || now.is_none() {
            return;
        }
        if self.terminal != now {
            self.terminal = now;
            // Two numbers always have a text.
            let text = serde_json::to_vec(&now).unwrap_or_default();
            self.flow.send(Kind::Resize, &text);
        }
    }

    /// Brings the VM's end forward.
    pub(super) fn end_within(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        if self.end.is_none_or(|(earlier, _)| end < earlier) {
            self.end = Some((end, limit));
        }
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
        let devices = self.devices.iter_mut();
        let devices = devices.filter(|device| !device.was_killed());
        devices.chain(&mut self.tree)
    }

    /// Ends what still runs, and judges.
    fn finish(mut self) -> Result<Outcome, LaunchError> {
        if !self.steps.is_empty() {
            self.go_on();
        }
        if self.record.is_over() {
            self.qemu.signal(Signal::SIGKILL);
        }
        let qemu_status = self.qemu.wait_at_most(PEER_END_LIMIT).map_err(waiting)?;
        if qemu_status.is_none() {
            self.qemu.signal(Signal::SIGKILL);
        }
        let back_ends = self
            .answerable()
            .map(|back_end| {
                let status = back_end.wait_at_most(PEER_END_LIMIT);
                Ok((back_end.name().to_owned(), status.map_err(waiting)?))
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.take_rest()?;

        let mut record = self.record;
        let all = self.devices.iter().chain(&self.tree);
        record.evidence.back_ends = all.map(BackEnd::evidence).collect();
        record.evidence.qemu_log = tail_of(&self.folder.path().join(QEMU_LOG));
        record.evidence.console = record.console.text().to_owned();
        record.evidence.stderr = String::from_utf8_lossy(&record.stderr).into_owned();
        if record.escaped {
            record.exit = Some(Exit::Signal(Signal::SIGHUP as i32));
        }
        if let Some(error) = record.output_error {
            return Err(LaunchError::Output(error));
        }
        let failure = judge(&mut record, qemu_status, &back_ends);
        match (failure, record.input_error, record.exit) {
            (None, Some(error), Some(_)) => Err(LaunchError::Input(error)),
            (None, None, Some(exit)) => Ok(Outcome {
                exit,
                stdout: record.stdout,
                stderr: record.stderr,
                evidence: record.evidence,
                duration: self.started.elapsed(),
                boot: record.boot.unwrap_or_default(),
                accel: self.accel.name(),
            }),
            (failure, _, _) => Err(LaunchError::Failed {
                failure: failure.unwrap_or(Failure::NoVerdict),
                evidence: Box::new(record.evidence),
            }),
        }
    }

    /// Takes what came while the others ended, the console's last lines above all, and gives output a
    /// moment to get where it is to go.
    fn take_rest(&mut self) -> Result<(), LaunchError> {
        let end = Instant::now() + REST_LIMIT;
        while !(self.flow.has_ended() && self.flow.is_written())
            && self.record.output_error.is_none()
        {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let events = self.flow.wait(Some(left)).map_err(waiting)?;
            // That children have ended by now is no news.
            let news = events
                .into_iter()
                .filter(|event| !matches!(event, Event::Look));
            news.for_each(|event| self.handle(event));
        }
        Ok(())
    }
}

fn waiting(source: io::Error) -> LaunchError {
    LaunchError::Prepare {
        what: "waiting".into(),
        source,
    }
}

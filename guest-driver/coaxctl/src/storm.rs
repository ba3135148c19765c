// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coaxctl storm`: a program whose memory is on the move.
//!
//! The program is a child that inherits everything; signals sent to this process are handed on to it,
//! and this process ends as it ended. Descendants whose parents have ended become children of this
//! process, so that the storm keeps track of them.
#![forbid(unsafe_code)]

mod descendants;
mod pulls;
mod tally;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use anyhow::{ensure, Context as _, Result};
use coax::{Context, Info};
use coax_program::{errln, signals, status};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{wait, WaitOptions};
use signal_hook::iterator::Signals;

use crate::args::{Storm, MAX_SEED};
use crate::report::mode_name;
use pulls::Puller;
use tally::{Frame, Tally};

/// Signals for the program. A terminal sends SIGINT and SIGQUIT to the program as well, so those
/// are only kept from ending the storm before it.
const FORWARDED: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
const KEPT_OFF: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Code(i32),
    /// By the signal of this number.
    Signal(i32),
}

/// Runs the program in a storm and ends as it does.
pub fn run(device: &Path, options: &Storm) -> ExitCode {
    let prepared = match Prepared::new(device, options) {
        Ok(prepared) => prepared,
        Err(error) => {
            errln!("coaxctl storm: {error:#}");
            return ExitCode::from(status::NOT_TRIED);
        }
    };
    let mut command = Command::new(&prepared.program);
    command.args(options.argv.iter().skip(1));
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let program = prepared.program.to_string_lossy();
            errln!("coaxctl storm: cannot run {program}: {error}");
            let missing = error.kind() == io::ErrorKind::NotFound;
            let status = if missing {
                status::NO_PROGRAM
            } else {
                status::CANNOT_RUN
            };
            return ExitCode::from(status);
        }
    };
    // A process number is positive.
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    match prepared.storm(pid, options) {
        Ok(end) => end_like(end),
        Err(error) => {
            // Without anybody to wait for it, and to tell how it ended, it had better not go on.
            let _ = kill(pid, Signal::SIGKILL);
            errln!("coaxctl storm: {error:#}");
            ExitCode::from(status::NOT_TRIED)
        }
    }
}

/// What has to be there before the program starts.
struct Prepared {
    context: Context,
    info: Info,
    program: std::ffi::OsString,
    json: Option<File>,
    signals: Signals,
    seed: u64,
}

impl Prepared {
    fn new(device: &Path, options: &Storm) -> Result<Self> {
        let context = Context::open_path(device)?;
        let info = context.info()?;
        // What the driver shows to those alone who may move other processes' pages.
        ensure!(info.first_pfn != 0, "Moving a program's pages needs root");
        let program = options.argv.first().context("There is no program")?;
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("Cannot write {}", path.display()))
        };
        let json = options.json.as_deref().map(create).transpose()?;
        signals::allow_waiting().context("Cannot wait for programs")?;
        // What was ignored stays so, for the program as well.
        let taken = FORWARDED.into_iter().chain(KEPT_OFF);
        let taken = taken.filter(|signal| !signals::ignored(*signal));
        let signals =
            Signals::new(taken.map(|signal| signal as i32)).context("Cannot take signals in")?;
        nix::sys::prctl::set_child_subreaper(true)
            .context("Cannot become the parent of orphans")?;
        Ok(Prepared {
            context,
            info,
            program: program.clone(),
            json,
            signals,
            seed: options.seed.unwrap_or_else(|| fastrand::u64(..=MAX_SEED)),
        })
    }

    /// The storm from the program's start to its end, and its report.
    fn storm(self, pid: Pid, options: &Storm) -> Result<End> {
        let Prepared {
            context,
            info,
            json,
            mut signals,
            seed,
            ..
        } = self;
        let before = context.stats()?;
        let started = Instant::now();
        let signals_handle = signals.handle();
        let (stop, stopped) = mpsc::channel::<()>();
        let (end, tally) = thread::scope(|scope| -> Result<(End, Tally)> {
            let storm = scope.spawn(|| blow(&context, options, seed, stopped));
            scope.spawn(move || {
                let signals = signals
                    .forever()
                    .filter_map(|signal| signal.try_into().ok());
                for signal in signals.filter(|signal| FORWARDED.contains(signal)) {
                    // It has ended when this fails.
                    let _ = kill(pid, signal);
                }
            });
            let end = wait_for(pid);
            drop(stop);
            signals_handle.close();
            let tally = storm
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((end?, tally))
        })?;
        let after = context.stats()?;
        let frame = Frame {
            mode: mode_name(&info),
            seed,
            end,
            seconds: started.elapsed().as_secs_f64(),
            by_fault: after.to_system_fault - before.to_system_fault,
            device_full: after.device_full - before.device_full,
        };
        match json.zip(options.json.as_deref()) {
            Some((mut file, path)) => writeln!(file, "{}", tally.json(&frame))
                .with_context(|| format!("Cannot write {}", path.display()))?,
            None => errln!("{}", tally.text(&frame)),
        }
        Ok(end)
    }
}

/// Pulls until told to stop, or the time is over.
fn blow(context: &Context, options: &Storm, seed: u64, stopped: Receiver<()>) -> Tally {
    let mut puller = Puller::new(context, u64::from(options.pages), seed);
    let pace = options
        .rate
        .map(|rate| std::time::Duration::from_secs(1) / rate);
    let started = Instant::now();
    let mut due = started;
    loop {
        if options
            .duration
            .is_some_and(|limit| started.elapsed() >= limit)
        {
            break;
        }
        // A puller that finds nothing to do looks again after a moment.
        let idle = match puller.pull() {
            Ok(pulled) => (!pulled).then_some(pulls::IDLE),
            Err(error) => {
                // With what the kernel said.
                puller.tally.error = Some(format!("{:#}", anyhow::Error::from(error)));
                break;
            }
        };
        let now = Instant::now();
        // Time lost is not made up for: it is the most that is given.
        due = pace.map_or(now, |pace| (due + pace).max(now));
        let rest = due - now;
        // The other end says nothing, it only goes away.
        match stopped.recv_timeout(idle.map_or(rest, |idle| idle.max(rest))) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    puller.tally
}

/// Waits for the program, and for orphans that have become this process's children meanwhile, however
/// they end.
fn wait_for(program: Pid) -> Result<End> {
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("Cannot wait for the program"),
        };
        if pid.as_raw_pid() != program.as_raw() {
            continue;
        }
        let code = status.exit_status().map(End::Code);
        let signal = || status.terminating_signal().map(End::Signal);
        if let Some(end) = code.or_else(signal) {
            return Ok(end);
        }
    }
}

/// Ends this process as the program ended.
fn end_like(end: End) -> ExitCode {
    match end {
        End::Code(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(status::NOT_TRIED)),
        End::Signal(signal) => signals::die_of_number(signal),
    }
}

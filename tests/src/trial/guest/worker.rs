// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A program with the device: commands of every kind, moves, and memory that comes and goes.
//!
//! When the device has gone it finds all its memory right without it, says so, and waits for another.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Error, PageRange, Policy};

use super::area::{Area, Tally};
use super::board::{Board, Count};
use super::work;
use crate::case::CaseResult;
use crate::guest::device::Device;
use crate::guest::memory::{HUGE, PAGE};
use crate::guest::pattern;
use crate::guest::wait::on_this_kernel;
use crate::trial::rng::Rng;

/// Areas of a worker.
const AREAS: usize = 6;
/// Steps after which a program ends; another begins.
const LIFE: Range<usize> = 300..1500;
/// Longest wait for a device that has gone: what it takes to unplug one and plug another in, several times.
const ABSENCE_LIMIT: Duration = Duration::from_secs(90);
/// Between two looks for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Whether the error means that the device has gone, or was reset.
fn is_gone(error: &Error) -> bool {
    let errno = error.errno();
    [
        libc::EIO,
        libc::ENODEV,
        libc::ECANCELED,
        libc::ENOENT,
        libc::ENXIO,
    ]
    .contains(&errno)
}

/// Works until the program's life, or the trial, is over.
pub fn run(board: &Board, worker: usize, seed: u64) -> CaseResult {
    let tally = Tally { board, worker };
    let mut rng = Rng::new(seed, 0);
    let life = rng.within(LIFE);
    tally.add(Count::Programs, 1);
    let mut program = Program {
        tally,
        device: None,
        areas: Vec::new(),
        epoch: 0,
    };
    for _ in 0..AREAS {
        let len = length(&mut rng);
        program.areas.push(Area::new(len, tally)?);
    }
    for _ in 0..life {
        if board.has_ended() {
            break;
        }
        match program.step(&mut rng) {
            Ok(()) => {}
            Err(error) => match error.downcast_ref::<Error>() {
                Some(gone) if is_gone(gone) => program.bear_loss()?,
                _ => return Err(error),
            },
        }
    }
    program.settle()
}

/// Bytes of an area; one in eight is of huge pages.
fn length(rng: &mut Rng) -> usize {
    if rng.percent(12) {
        return HUGE;
    }
    work::LEAST + rng.within(0..80) * PAGE
}

struct Program<'a> {
    tally: Tally<'a>,
    device: Option<Device>,
    areas: Vec<Area>,
    /// The last epoch in which all was compared.
    epoch: u64,
}

impl Program<'_> {
    /// Does something.
    fn step(&mut self, rng: &mut Rng) -> Result<()> {
        let tally = self.tally;
        if self.device.is_none() {
            self.device = self.find_device(rng)?;
        }
        let epoch = tally.board.epoch();
        if epoch != self.epoch {
            self.finish_all()?;
            self.verify_all();
            self.epoch = epoch;
            tally.board.set_seen(tally.worker, epoch);
        }
        let Some(device) = &self.device else {
            return Ok(());
        };
        let number = rng.within(0..AREAS);
        let area = &mut self.areas[number];
        if rng.percent(20) {
            return migrate(device, area, tally, rng);
        }
        if area.is_busy() {
            area.finish(device, tally)?;
        }
        match rng.within(0..100) {
            0..8 => {
                let len = rng.within(1..area.len() / 8) * 8;
                area.write(0, &pattern::bytes(rng.next(), len));
            }
            8..14 => area.verify(tally),
            14..20 => {
                area.verify(tally);
                *area = Area::new(length(rng), tally)?;
            }
            20..24 => {
                let fill = work::fill(area, rng);
                let id = device.start(fill.command)?;
                // Away under the command: it faults or was done.
                *area = Area::new(length(rng), tally)?;
                match device.finish(id) {
                    Err(error) if error.fault_address().is_none() => return Err(error.into()),
                    _ => tally.add(Count::Commands, 1),
                }
            }
            _ => {
                let work = work::choose(area, rng);
                area.start(device, work)?;
            }
        }
        Ok(())
    }

    /// A device that works; `None` if the trial ends first.
    fn find_device(&self, rng: &mut Rng) -> Result<Option<Device>> {
        let begin = Instant::now();
        let limit = on_this_kernel(ABSENCE_LIMIT);
        let mut missed = false;
        loop {
            let found = Device::open().and_then(|device| {
                device.run(Command::nop())?;
                Ok(device)
            });
            match found {
                Ok(device) => {
                    let policies = [Policy::OnFault, Policy::OnRequest, Policy::Never];
                    let policy = policies[rng.within(0..policies.len())];
                    device.set_policy(policy, Some(1 << rng.within(0..10)))?;
                    return Ok(Some(device));
                }
                Err(_) if self.tally.board.has_ended() => return Ok(None),
                // A program that begins while there is none knows as much as one that has lost it.
                Err(_) if !std::mem::replace(&mut missed, true) => self.tally.add(Count::Gone, 1),
                Err(error) => ensure!(
                    begin.elapsed() < limit,
                    "No device within {limit:?}: {error}"
                ),
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// The device has gone: whatever was under way has ended, and memory is what it was or what it was to be.
    fn bear_loss(&mut self) -> Result<()> {
        let tally = self.tally;
        tally.add(Count::Refused, 1);
        if let Some(device) = &self.device {
            for area in &mut self.areas {
                match area.finish(device, tally) {
                    Err(error) if !is_gone(&error) => {
                        return Err(error).context("A command of a device that has gone")
                    }
                    _ => {}
                }
            }
        }
        self.verify_all();
        self.device = None;
        tally.add(Count::Gone, 1);
        Ok(())
    }

    fn finish_all(&mut self) -> Result<(), Error> {
        if let Some(device) = &self.device {
            for area in &mut self.areas {
                area.finish(device, self.tally)?;
            }
        }
        Ok(())
    }

    fn verify_all(&mut self) {
        self.areas
            .iter_mut()
            .for_each(|area| area.verify(self.tally));
    }

    /// The program's end: everything is right once more.
    fn settle(&mut self) -> CaseResult {
        match self.finish_all() {
            Ok(()) => self.verify_all(),
            Err(error) if is_gone(&error) => self.bear_loss()?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Moves a part of the area, whatever is under way on it.
fn migrate(device: &Device, area: &Area, tally: Tally<'_>, rng: &mut Rng) -> Result<()> {
    let pages = area.len() / PAGE;
    let first = rng.within(0..pages);
    let count = rng.within(first..pages) - first + 1;
    let range = PageRange::new(area.memory().at(first * PAGE), (count * PAGE) as u64);
    let moved = if rng.percent(60) {
        device.prefetch(range)
    } else {
        device.evict(range)
    };
    match moved {
        Ok(migrated) => tally.add(Count::Moved, migrated.moved),
        // The context's policy is to move nothing.
        Err(error) if error.errno() == libc::EPERM => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

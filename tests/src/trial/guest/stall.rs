// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A point of [`Trial::Stall`](crate::trial::plan::Trial): the back end stops under the storm and a victim's
//! fills, the victim lets its memory go, somebody else gets it, and the back end goes on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use coax::{Command, Policy};
use coax_program::outln;

use super::board::{since, Board};
use super::crew::Crew;
use super::while_storming;
use crate::case::CaseResult;
use crate::guest::device::Device;
use crate::guest::fresh::Fresh;
use crate::guest::memory::{Mapping, HUGE};
use crate::guest::module;
use crate::guest::process::{fork, Child};
use crate::guest::wait::on_this_kernel;
use crate::request::Request;
use crate::trial::event::Point;
use crate::trial::plan::What;
use crate::trial::rng::Rng;

/// What a victim lets go.
const VICTIM: usize = 32 * HUGE;
/// Fills of all of it that are under way at the stop.
const FILLS: usize = 60;
/// Between two looks of the victim for the conductor's word.
const WORD_INTERVAL: Duration = Duration::from_millis(5);
/// Storm before the stop, in milliseconds.
const BEFORE: std::ops::Range<usize> = 0..150;
/// From the request for a stop until the device has stopped, on a busy host.
const LAG: Duration = Duration::from_millis(250);
/// What is left of a stop, at least, when fresh memory is taken.
const REST: Duration = Duration::from_millis(400);
/// Of what programs can have, what is looked at.
const FRESH_PERCENT: usize = 45;
/// Longest until a device that goes on is at work again, with all that is waiting for it.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// Longest reset, after which nothing comes back by itself.
const RESET_LIMIT: Duration = Duration::from_secs(5);
/// Storm after that, before fresh memory is looked at: the device finishes what it had begun.
const AFTER: Duration = Duration::from_millis(500);
/// Longest until the victim is at work, and until it has ended.
const VICTIM_LIMIT: Duration = Duration::from_secs(60);

/// How far the victim is, as the board says it.
const NONE: u64 = 0;
const READY: u64 = 1;
const UNMAP: u64 = 2;

/// How a victim lets its memory go.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It unmaps it.
    Unmap,
    /// It ends, as one that does not tidy up.
    Exit,
    /// It is killed.
    Kill,
}

/// Makes the point.
pub fn point(crew: &mut Crew, number: usize, stop: u64, rng: &mut Rng) -> Result<Point> {
    let begin = Instant::now();
    let before = crew.board.sums();
    let stop_time = Duration::from_millis(stop);
    let fate = [Fate::Unmap, Fate::Exit, Fate::Kill][rng.within(0..3)];
    let policy = [Policy::Never, Policy::OnRequest, Policy::OnFault][rng.within(0..3)];
    crew.board.set_victim(NONE);
    let victim = fork(|| victim(&crew.board, policy, fate))?;
    let limit = on_this_kernel(VICTIM_LIMIT);
    let over = |crew: &mut Crew| Ok(crew.board.victim() == READY || victim.has_ended()?);
    if !while_storming(crew, limit, over)? || victim.has_ended()? {
        crew.complain(format!("the victim was not at work within {limit:?}"));
    }
    while_storming(crew, rng.milliseconds(BEFORE), |_| Ok(false))?;

    outln!("{}", Request::StopDeviceFor(stop_time))?;
    let stopped = Instant::now();
    while_storming(crew, LAG, |_| Ok(false))?;
    match fate {
        Fate::Kill => victim.send_kill()?,
        Fate::Unmap | Fate::Exit => crew.board.set_victim(UNMAP),
    }
    if rng.percent(50) {
        crew.kill_one()?;
    }
    // When the memory has gone it is taken; if it is waiting for the device, what there is.
    let left = stop_time.saturating_sub(stopped.elapsed() + REST);
    while_storming(crew, left, |_| victim.has_ended())?;
    let fresh = Fresh::take_percent(FRESH_PERCENT)?;
    let left = stop_time.saturating_sub(stopped.elapsed());
    while_storming(crew, left, |_| Ok(false))?;

    let returned = await_return(crew)?;
    let settled = stopped.elapsed().as_secs_f64();
    while_storming(crew, AFTER, |_| Ok(false))?;
    let found = fresh.look();
    if found.bytes > 0 {
        crew.complain(format!(
            "{} foreign bytes in {} of {} fresh pages, the first word {:#x}; the victim's was {PATTERN:#x}, \
             {fate:?}, {policy:?}",
            found.bytes,
            found.pages,
            fresh.len() / crate::guest::memory::PAGE,
            found.word,
        ));
    }
    let looked = fresh.len() as u64;
    drop(fresh);
    collect(crew, victim)?;
    if !returned {
        rebind(crew)?;
    }
    crew.verify()?;
    let mut counts = since(before, crew.board.sums());
    counts.foreign += found.bytes;
    Ok(Point {
        point: number,
        what: What::Stop(stop),
        seconds: begin.elapsed().as_secs_f64(),
        settled,
        counts,
        fresh: looked,
        problems: crew.problems(),
    })
}

/// What victims fill their memory with.
const PATTERN: u64 = 0xD00D_D00D_D00D_D00D;

/// Has the device fill memory, and lets that go when told.
fn victim(board: &Board, policy: Policy, fate: Fate) -> CaseResult {
    let device = Device::open()?;
    device.set_policy(policy, None)?;
    let memory = Mapping::anonymous(VICTIM)?;
    memory
        .advise(0..VICTIM, libc::MADV_POPULATE_WRITE)
        .context("MADV_POPULATE_WRITE")?;
    // From here on every page has a translation on the device.
    device.fill(&memory, 0..VICTIM, PATTERN)?;
    let fill = Command::fill(memory.address(), VICTIM as u64, PATTERN);
    let fills = (0..FILLS).map(|_| device.start(fill));
    let fills = fills.collect::<Result<Vec<_>, _>>()?;
    board.set_victim(READY);
    while board.victim() != UNMAP {
        std::thread::sleep(WORD_INTERVAL);
    }
    if matches!(fate, Fate::Exit) {
        return Ok(());
    }
    drop(memory);
    for fill in fills {
        // It was done, or its memory was gone, or so was the device: all of that may be.
        let _ = device.finish(fill);
    }
    Ok(())
}

/// Waits until the device is at work; whether it is. One that says that it has gone is asked again for as long
/// as a reset may take.
fn await_return(crew: &mut Crew) -> Result<bool> {
    let begin = Instant::now();
    let limit = on_this_kernel(RETURN_LIMIT);
    let mut refused = None;
    let mut last = None;
    let over = while_storming(crew, limit, |_| {
        let empty = Device::open().and_then(|device| device.run(Command::nop()));
        last = empty.err();
        let since = last
            .as_ref()
            .map(|_| *refused.get_or_insert_with(Instant::now));
        Ok(since.is_none_or(|since| since.elapsed() > on_this_kernel(RESET_LIMIT)))
    })?;
    let after = begin.elapsed().as_secs_f64();
    match last {
        None if over => return Ok(true),
        None => crew.complain(format!("the device was not asked within {limit:?}")),
        Some(error) => crew.complain(format!(
            "the device has not come back {after:.1} s after it went on: {error}"
        )),
    }
    Ok(false)
}

/// What a person would do with a device that has not come back.
fn rebind(crew: &mut Crew) -> Result<()> {
    let name = module::bound_device()?;
    module::unbind(&name)?;
    module::bind(&name)?;
    crew.tend()
}

fn collect(crew: &mut Crew, victim: Child) -> Result<()> {
    let limit = on_this_kernel(VICTIM_LIMIT);
    if !while_storming(crew, limit, |_| victim.has_ended())? {
        crew.complain(format!("the victim has not ended within {limit:?}"));
    }
    Ok(())
}

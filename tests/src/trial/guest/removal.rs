// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A point of [`Trial::Kill`](crate::trial::plan::Trial): the device goes under the storm, everybody has all
//! their memory without it, and there is a new one.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use coax::Command;
use coax_program::outln;

use super::board::since;
use super::crew::Crew;
use super::while_storming;
use crate::guest::device::Device;
use crate::guest::fresh::Fresh;
use crate::guest::module;
use crate::guest::slot;
use crate::guest::wait::on_this_kernel;
use crate::request::Request;
use crate::trial::event::Point;
use crate::trial::plan::What;
use crate::trial::rng::Rng;

/// Storm before, in milliseconds.
const BEFORE: std::ops::Range<usize> = 100..900;
/// Longest until a device that was unplugged has gone: its slot waits 5 s for somebody to change their mind.
const UNPLUG_LIMIT: Duration = Duration::from_secs(60);
/// Longest until a new device is there.
const PLUG_LIMIT: Duration = Duration::from_secs(60);
/// Of what programs can have, what is looked at.
const FRESH_PERCENT: usize = 20;

/// Makes the point.
pub fn point(crew: &mut Crew, number: usize, what: What, rng: &mut Rng) -> Result<Point> {
    let begin = Instant::now();
    let before = crew.board.sums();
    while_storming(crew, rng.milliseconds(BEFORE), |_| Ok(false))?;
    let losses = crew.losses();
    let name = module::bound_device()?;
    let gone = Instant::now();
    match what {
        What::Kill => outln!("{}", Request::KillDevice)?,
        What::Unbind => module::unbind(&name)?,
        What::Unplug => {
            outln!("{}", Request::UnplugDevice)?;
            await_device(crew, false, UNPLUG_LIMIT)?;
        }
        What::Stop(_) => bail!("A stop is no removal"),
    }
    crew.bear_loss(losses)?;
    let settled = gone.elapsed().as_secs_f64();
    // What the device had is the system's by now.
    let fresh = Fresh::take_percent(FRESH_PERCENT)?;
    match what {
        What::Unbind => module::bind(&name)?,
        _ => {
            if what == What::Kill {
                slot::power_off(&name)?;
                await_device(crew, false, UNPLUG_LIMIT)?;
            }
            outln!("{}", Request::PlugDevice)?;
            await_device(crew, true, PLUG_LIMIT)?;
        }
    }
    let again = Device::open()?;
    again.run(Command::nop())?;
    drop(again);
    crew.verify()?;
    let found = fresh.look();
    if found.bytes > 0 {
        crew.complain(format!("foreign bytes in fresh memory: {found:?}"));
    }
    let mut counts = since(before, crew.board.sums());
    counts.foreign += found.bytes;
    Ok(Point {
        point: number,
        what,
        seconds: begin.elapsed().as_secs_f64(),
        settled,
        counts,
        fresh: fresh.len() as u64,
        problems: crew.problems(),
    })
}

fn await_device(crew: &mut Crew, there: bool, limit: Duration) -> Result<()> {
    let limit = on_this_kernel(limit);
    let done = while_storming(crew, limit, |_| Ok(module::has_device() == there))?;
    let wanted = if there { "come" } else { "gone" };
    ensure!(done, "The device has not {wanted} within {limit:?}");
    Ok(())
}

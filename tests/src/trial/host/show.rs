// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shows what happens while it happens.

use std::time::{Duration, Instant};

use coax_images::progress::seconds;
use coax_program::output::OutputError;
use coax_program::{errln, outln};

use crate::case::Mode;
use crate::trial::event::{Event, Point};
use crate::trial::plan::Plan;

/// Between two lines on points at which nothing was wrong.
const INTERVAL: Duration = Duration::from_secs(15);

/// Shows the events of one VM: points with something wrong on standard output, how far it is on standard error.
pub struct Show {
    mode: Mode,
    plan: Plan,
    begin: Instant,
    shown: Option<Instant>,
}

impl Show {
    /// A VM in this mode that makes these points.
    pub fn new(mode: Mode, plan: &Plan) -> Self {
        errln!(
            "{mode}: booting; points {} to {}, seed {}",
            plan.from,
            plan.to - 1,
            plan.seed
        );
        Show {
            mode,
            plan: *plan,
            begin: Instant::now(),
            shown: None,
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn event(&mut self, event: &Event) -> Result<(), OutputError> {
        match event {
            Event::Begin { .. } => {}
            Event::Point(point) => self.point(point)?,
            Event::End => errln!("{}: all points are made", self.mode),
        }
        Ok(())
    }

    fn point(&mut self, point: &Point) -> Result<(), OutputError> {
        let mode = self.mode;
        if !point.is_right() {
            outln!("{mode}: point {}, {}: FAILED", point.point, point.what)?;
            for problem in &point.problems {
                outln!("{mode}:   {problem}")?;
            }
        }
        if self.shown.is_some_and(|shown| shown.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.shown = Some(Instant::now());
        let done = u32::try_from(point.point + 1 - self.plan.from).unwrap_or(u32::MAX);
        let left = u32::try_from(self.plan.to - point.point - 1).unwrap_or(u32::MAX);
        let counts = &point.counts;
        errln!(
            "{mode}: point {} of {}, {}, settled after {:.1} s; {} commands, {} pages moved, {} refused, {} MiB \
             compared, {} MiB fresh; about {} left",
            point.point,
            self.plan.to - 1,
            point.what,
            point.settled,
            counts.commands,
            counts.moved,
            counts.refused,
            counts.verified >> 20,
            point.fresh >> 20,
            seconds(self.begin.elapsed() / done * left),
        );
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shows what happens while it happens.

use std::time::{Duration, Instant};

use coax_images::progress::seconds;
use coax_program::output::OutputError;
use coax_program::{errln, outln};

use crate::case::Mode;
use crate::soak::event::{Event, Progress, Round};

/// Between two lines on how far a part is; that another begins is shown at once.
const INTERVAL: Duration = Duration::from_secs(30);

/// Shows the events of one VM.
pub struct Show {
    mode: Mode,
    last: Option<(String, bool, Instant)>,
}

impl Show {
    /// A VM in this mode.
    pub fn new(mode: Mode) -> Self {
        errln!("{mode}: booting");
        Show { mode, last: None }
    }

    /// Shows an event: results on standard output, how far it is on standard error.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn event(&mut self, event: &Event) -> Result<(), OutputError> {
        let mode = self.mode;
        match event {
            Event::Reference { part, reference } => {
                outln!("{mode}: {part}: {:.1} s without a storm", reference.seconds)
            }
            Event::Progress(progress) => {
                self.progress(progress);
                Ok(())
            }
            Event::Round(round) => {
                outln!("{mode}: {}", line(round))?;
                let mut problems = round.problems.iter();
                problems.try_for_each(|problem| outln!("{mode}:   {problem}"))
            }
            Event::End { rounds, next } => {
                outln!("{mode}: done, {rounds} rounds; `--from {next}` goes on from here")
            }
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let Progress {
            part, storm, step, ..
        } = progress;
        let recent = self.last.as_ref().is_some_and(|(last, in_storm, shown)| {
            last == part && in_storm == storm && shown.elapsed() < INTERVAL
        });
        if recent {
            return;
        }
        self.last = Some((part.clone(), *storm, Instant::now()));
        let place = if *storm {
            "in the storm"
        } else {
            "without a storm"
        };
        errln!(
            "{}: step {step}, {part} {place}; {} of storm left, {} pages moved so far",
            self.mode,
            seconds(Duration::from_secs(progress.left)),
            progress.moved,
        );
    }
}

fn line(round: &Round) -> String {
    let Round {
        part,
        storm,
        problems,
        ..
    } = round;
    let verdict = if problems.is_empty() {
        "same"
    } else {
        "FAILED"
    };
    format!(
        "{part}: {verdict}, {:.1} s in the storm, {:.1} s without; {} pages over, {} back, {} by fault, \
         {} pulls, {} processes, seed {}",
        round.seconds,
        round.seconds_without,
        storm.over.moved,
        storm.back.moved,
        storm.by_fault,
        storm.over.pulls + storm.back.pulls,
        storm.processes,
        storm.seed,
    )
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long the rest of some work takes: what each part took on a machine with two processors, in the order in
//! which parts wait for each other, by as much slower or faster as this machine has shown itself so far.

use std::time::Duration;

/// Weight of what is known of other machines, against what this one has shown: so many seconds of it.
const PRIOR_SECONDS: f64 = 45.0;
/// A part that does not say how far it is is never taken for further than this before it is done.
const MOST_BY_TIME: f64 = 0.9;

/// A part of the work, as it was measured.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// How the title of its progress begins.
    pub title: &'static str,
    /// Seconds of waiting, for the network or a disk.
    pub waiting: f64,
    /// Seconds of one processor.
    pub processor: f64,
    /// Processors that it can use.
    pub at_once: f64,
    /// Titles of parts that it waits for.
    pub after: &'static [&'static str],
}

/// How long all of these take from nothing on a machine with two processors, in minutes, at least one.
pub fn minutes(parts: Vec<Expected>) -> u32 {
    let (_, all) = Estimate::new(parts, 2.0, 1.0).rest(Duration::ZERO);
    (all.as_secs_f64() / 60.0).ceil().max(1.0) as u32
}

/// How far a part is.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// When it began, in seconds of the whole.
    began: Option<f64>,
    /// Its share that is done, as it says itself.
    told: f64,
    done: bool,
}

/// How far all parts are.
#[derive(Debug)]
pub struct Estimate {
    expected: Vec<Expected>,
    parts: Vec<Part>,
    processors: f64,
    /// How many times as long as on the measured machine things take here, as known before.
    prior: f64,
}

impl Estimate {
    /// Nothing has begun.
    pub fn new(expected: Vec<Expected>, processors: f64, prior: f64) -> Self {
        Estimate {
            parts: vec![Part::default(); expected.len()],
            expected,
            processors,
            prior,
        }
    }

    fn part(&mut self, title: &str) -> Option<&mut Part> {
        let mut known = self.expected.iter();
        let index = known.position(|expected| title.starts_with(expected.title))?;
        self.parts.get_mut(index)
    }

    /// A part of this title begins, `now` seconds after the start.
    pub fn begin(&mut self, title: &str, now: f64) {
        if let Some(part) = self.part(title) {
            part.began.get_or_insert(now);
        }
    }

    /// It has done this share.
    pub fn update(&mut self, title: &str, share: f64) {
        if let Some(part) = self.part(title) {
            part.told = share.clamp(part.told, 1.0);
        }
    }

    /// It is done.
    pub fn finish(&mut self, title: &str) {
        if let Some(part) = self.part(title) {
            part.done = true;
        }
    }

    /// Share of the whole that is done, and what the rest takes.
    pub fn rest(&self, now: Duration) -> (f64, Duration) {
        let now = now.as_secs_f64();
        let all = self.simulate(&vec![0.0; self.parts.len()]);
        let mut factor = self.prior;
        let mut left = all;
        // How far a part is that does not tell depends on the factor, which depends on that.
        for _ in 0..4 {
            left = self.simulate(&self.shares(now, factor));
            let done = all - left;
            factor = (now + PRIOR_SECONDS * self.prior) / (done + PRIOR_SECONDS);
        }
        let share = if all > 0.0 { 1.0 - left / all } else { 1.0 };
        (share, Duration::from_secs_f64(left * factor))
    }

    /// Shares that are done, part by part.
    fn shares(&self, now: f64, factor: f64) -> Vec<f64> {
        let share = |index: usize, part: &Part| {
            let expected = &self.expected[index];
            if part.done || self.is_behind(index) {
                return 1.0;
            }
            let Some(began) = part.began else { return 0.0 };
            let alone = expected.waiting + expected.processor / expected.at_once.max(1.0);
            let by_time = (now - began) / (alone * factor).max(1.0);
            part.told.max(if part.told > 0.0 {
                0.0
            } else {
                by_time.min(MOST_BY_TIME)
            })
        };
        let parts = self.parts.iter().enumerate();
        parts.map(|(index, part)| share(index, part)).collect()
    }

    /// Whether something has begun that waits for this part: then there was nothing to do for it.
    fn is_behind(&self, index: usize) -> bool {
        let title = self.expected[index].title;
        let mut others = self.expected.iter().zip(&self.parts);
        others.any(|(other, part)| {
            (part.began.is_some() || part.done) && other.after.contains(&title)
        })
    }

    /// Seconds that the measured machine takes for the rest, with as many processors as this one has: parts
    /// that have nothing to wait for run at once, and share the processors.
    fn simulate(&self, done: &[f64]) -> f64 {
        let mut left: Vec<(f64, f64)> = self
            .expected
            .iter()
            .zip(done)
            .map(|(part, done)| (part.waiting * (1.0 - done), part.processor * (1.0 - done)))
            .collect();
        let is_over = |(waiting, processor): &(f64, f64)| *waiting <= 1e-6 && *processor <= 1e-6;
        let mut time = 0.0;
        loop {
            let running: Vec<usize> = (0..left.len())
                .filter(|&index| !is_over(&left[index]))
                .filter(|&index| {
                    let mut others = self.expected.iter().zip(&left);
                    let mut is_waited_for = |title: &str| {
                        others.any(|(part, left)| part.title == title && !is_over(left))
                    };
                    let mut after = self.expected[index].after.iter();
                    !after.any(|title| is_waited_for(title))
                })
                .collect();
            if running.is_empty() {
                return time;
            }
            let computing = running.iter().filter(|&&index| left[index].0 <= 1e-6);
            let share = self.processors / computing.count().max(1) as f64;
            let speed = |index: usize| self.expected[index].at_once.max(1.0).min(share.max(0.05));
            let step = running.iter().map(|&index| match left[index] {
                (waiting, _) if waiting > 1e-6 => waiting,
                (_, processor) => processor / speed(index),
            });
            let step = step.fold(f64::INFINITY, f64::min);
            for &index in &running {
                match &mut left[index] {
                    (waiting, _) if *waiting > 1e-6 => *waiting -= step,
                    (_, processor) => *processor -= step * speed(index),
                }
            }
            time += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: &[Expected] = &[
        Expected {
            title: "Fetching",
            waiting: 20.0,
            processor: 0.0,
            at_once: 1.0,
            after: &[],
        },
        Expected {
            title: "Programs",
            waiting: 0.0,
            processor: 200.0,
            at_once: 2.0,
            after: &[],
        },
        Expected {
            title: "Kernel",
            waiting: 0.0,
            processor: 100.0,
            at_once: 2.0,
            after: &["Fetching"],
        },
    ];

    fn estimate() -> Estimate {
        Estimate::new(PARTS.to_vec(), 2.0, 1.0)
    }

    fn left(estimate: &Estimate, now: u64) -> f64 {
        estimate.rest(Duration::from_secs(now)).1.as_secs_f64()
    }

    #[test]
    fn at_the_start_parts_share_the_processors() {
        // All processors have work from the first second on: 300 s of two.
        assert!((left(&estimate(), 0) - 150.0).abs() < 0.1);
        let mut one = estimate();
        one.processors = 1.0;
        assert!((left(&one, 0) - 300.0).abs() < 0.1);
        assert_eq!((minutes(PARTS.to_vec()), minutes(Vec::new())), (3, 1));
    }

    #[test]
    fn a_machine_that_is_half_as_fast_is_noticed() {
        let mut estimate = estimate();
        for title in ["Fetching", "Programs"] {
            estimate.begin(title, 0.0);
        }
        estimate.finish("Fetching of a file");
        estimate.begin("Kernel", 40.0);
        // What takes 100 s there has taken 200 here.
        estimate.update("Programs", 0.6);
        estimate.update("Kernel", 0.8);
        let left = left(&estimate, 200);
        assert!((75.0..100.0).contains(&left), "{left}");
    }

    #[test]
    fn what_had_nothing_to_do_is_done_and_what_does_not_tell_goes_by_time() {
        let mut estimate = estimate();
        estimate.begin("Kernel", 0.0);
        estimate.begin("Programs", 0.0);
        let at_start = left(&estimate, 0);
        assert!((at_start - 150.0).abs() < 0.1, "{at_start}");
        let later = left(&estimate, 30);
        assert!(later < at_start - 20.0, "{later}");
        for title in ["Programs", "Kernel"] {
            estimate.finish(title);
        }
        assert_eq!(estimate.rest(Duration::from_secs(150)).1, Duration::ZERO);
    }
}

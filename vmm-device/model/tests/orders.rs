// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Orders of events, chosen by the checker: no stale use of a page, no answer to the wrong command,
//! no command that is never answered.
//!
//! A run that fails prints its schedule, which `shuttle::replay` runs again. More schedules:
//!
//! ```text
//! SCHEDULES=1000000 cargo test --release -p coax-model -- --ignored
//! ```

use coax_model::mmu::ContextId;
use coax_model::sync::{lock, Arc, Mutex};
use coax_model::world::{device, run_driver, run_engine, submit, Device, CONTEXTS, ENGINES, PAGES};
use shuttle::rand::{thread_rng, Rng};
use shuttle::thread;

/// Schedules of the ordinary run.
const SCHEDULES: usize = 500;
/// Schedules of the long run, if not told otherwise.
const MANY: usize = 200_000;
/// Changes of the running thread that a schedule of the second kind has at places of its choice.
const DEPTH: usize = 4;

/// Runs `control` with the device's other threads around it, to the end of all commands.
fn run(control: impl FnOnce(&Arc<Device>)) {
    let device = device();
    let mut threads = Vec::new();
    for engine in 0..ENGINES {
        let device = Arc::clone(&device);
        threads.push(thread::spawn(move || run_engine(&device, engine)));
    }
    let driver = Arc::clone(&device);
    let driver = thread::spawn(move || run_driver(&driver));
    control(&device);
    device.outside.ledger.all_ended();
    device.outside.finish_engines();
    for thread in threads {
        assert!(thread.join().is_ok());
    }
    device.outside.finish_driver();
    assert!(driver.join().is_ok());
    // The driver has answered what it was asked.
    assert_eq!(device.requests_outstanding(), 0);
}

fn submit_some(device: &Device, context: ContextId) {
    for _ in 0..thread_rng().gen_range(1..=2) {
        let engine = thread_rng().gen_range(0..ENGINES);
        let count = thread_rng().gen_range(1..=2);
        let pages = (0..count)
            .map(|_| thread_rng().gen_range(0..PAGES))
            .collect();
        submit(device, engine, context, pages);
    }
}

fn close(device: &Device, context: ContextId) {
    let ledger = &device.outside.ledger;
    if ledger.empties(|| device.close(context)) {
        ledger.closed(context);
    }
}

fn abort_all(device: &Device) {
    let ledger = &device.outside.ledger;
    let before = ledger.submitted_so_far();
    ledger.empties(|| device.abort_all());
    ledger.none_running(before, |_| true);
}

fn open(device: &Device, number: u32) -> ContextId {
    match device.open(number) {
        Some(id) => id,
        None => panic!("context {number} cannot be opened"),
    }
}

/// Nothing but commands: all come to an end of their own.
fn commands_alone() {
    run(|device| {
        for number in 0..CONTEXTS {
            let context = open(device, number);
            submit_some(device, context);
        }
        device.outside.ledger.all_ended();
        let submitted = device.outside.ledger.submitted_so_far();
        assert_eq!(device.outside.ledger.completed(), submitted);
    });
}

/// Contexts are closed at any time and their numbers used again.
fn closes() {
    run(|device| {
        let other = open(device, 1);
        submit_some(device, other);
        for _ in 0..3 {
            let context = open(device, 0);
            submit_some(device, context);
            close(device, context);
        }
    });
}

/// Resets by the driver, which leave contexts open.
fn resets_of_commands() {
    run(|device| {
        let contexts: Vec<_> = (0..CONTEXTS).map(|number| open(device, number)).collect();
        for _ in 0..2 {
            for &context in &contexts {
                submit_some(device, context);
            }
            abort_all(device);
        }
    });
}

/// Queues that stop, and go on elsewhere.
fn restarts() {
    run(|device| {
        let context = open(device, 0);
        submit_some(device, context);
        // Commands come meanwhile that a thread has taken before.
        let restarting = Arc::clone(device);
        let restart = thread::spawn(move || {
            restarting.outside.restart();
            restarting.send();
        });
        submit_some(device, context);
        assert!(restart.join().is_ok());
        submit_some(device, context);
        close(device, context);
        let context = open(device, 0);
        submit_some(device, context);
    });
}

/// The device is reset while a context is closed and commands come, as when the program ends.
fn reset_of_the_device() {
    run(|device| {
        let contexts: Vec<_> = (0..CONTEXTS).map(|number| open(device, number)).collect();
        let resetting = Arc::clone(device);
        let reset = thread::spawn(move || resetting.outside.ledger.resets(|| resetting.reset()));
        for &context in &contexts {
            submit_some(device, context);
        }
        close(device, contexts[0]);
        assert!(reset.join().is_ok());
        device.outside.ledger.all_ended();
        for &context in &contexts {
            device.outside.ledger.closed(context);
        }
        for number in 0..CONTEXTS {
            let context = open(device, number);
            submit_some(device, context);
        }
    });
}

/// All of it in any order.
fn anything() {
    run(|device| {
        let contexts: Mutex<Vec<ContextId>> = Mutex::new(Vec::new());
        for _ in 0..8 {
            let mut contexts = lock(&contexts);
            match thread_rng().gen_range(0..10) {
                0..=1 => contexts.extend(device.open(thread_rng().gen_range(0..CONTEXTS))),
                2..=5 => {
                    if let Some(&context) = contexts.last() {
                        submit_some(device, context);
                    }
                }
                6..=7 => {
                    if let Some(context) = contexts.pop() {
                        close(device, context);
                    }
                }
                8 => abort_all(device),
                _ => {
                    device.outside.restart();
                    device.send();
                }
            }
        }
    });
}

const SCENARIOS: [(&str, fn()); 6] = [
    ("commands alone", commands_alone),
    ("closes", closes),
    ("resets of commands", resets_of_commands),
    ("restarts", restarts),
    ("reset of the device", reset_of_the_device),
    ("anything", anything),
];

#[expect(
    clippy::print_stdout,
    reason = "it is part of a test, whose output libtest keeps"
)]
fn check(schedules: usize) {
    for (name, scenario) in SCENARIOS {
        println!("{name}: {schedules} schedules of each kind");
        shuttle::check_random(scenario, schedules);
        shuttle::check_pct(scenario, schedules, DEPTH);
    }
}

#[test]
fn orders_are_harmless() {
    check(SCHEDULES);
}

#[test]
#[ignore = "takes as long as one likes"]
fn many_orders_are_harmless() {
    let schedules = std::env::var("SCHEDULES");
    check(schedules.map_or(MANY, |count| count.parse().unwrap_or(MANY)));
}

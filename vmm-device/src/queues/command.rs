// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loop of one engine's thread: takes commands from its queue and runs them in steps.
//!
//! Commands that can go on take turns, one step each, so that a long command delays others by a
//! step at most; new commands are taken in between, a bounded number in each round.
//!
//! While the front end has the ring stopped, as when the VM is paused, nothing runs; commands are
//! kept until the ring is started again, or dropped when the device is reset.
#![forbid(unsafe_code)]

use std::thread;
use std::time::Instant;

use coax_abi::wire::{self, CommandReply, RESULT_BYTES, STATUS_BAD_CONTEXT, STATUS_BAD_MESSAGE};

use crate::command::Request;
use crate::device::Device;
use crate::engine::Operation;
use crate::job::Job;
use crate::queues::turn::Turn;
use crate::sync::lock;
use crate::transport::chain::{Chain, ReplySlot};
use crate::transport::port::{Error, Sizes};
use crate::transport::CHAINS_A_ROUND;

const SIZES: Sizes = Sizes {
    request: size_of::<wire::Command>(),
    reply: size_of::<CommandReply>(),
};

/// Why no more commands were taken from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// There are none.
    Drained,
    /// The round is over.
    More,
    /// A command has to end first, or the ring makes no sense and the driver has to kick again.
    Stopped,
}

/// Runs an engine until there is nothing left to do or its ring is stopped.
pub fn run(device: &Device, engine: usize) {
    let (machine, shell) = (&device.machine, &device.machine.outside);
    let port = shell.command_port(engine);
    machine.awake(engine);
    let mut turn = Turn::new(Instant::now(), shell.stats.invalidations.get());
    while !device.shutting_down() {
        let Some(life) = port.life() else {
            break;
        };
        if let Err(error) = port.pay() {
            shell.queue_error("command", &error);
        }
        let intake = take(device, engine, CHAINS_A_ROUND);
        if turn.is_over(Instant::now(), shell.stats.invalidations.get()) {
            thread::yield_now();
        }
        if machine.run(engine, life) {
            continue;
        }
        match intake {
            Intake::More => {}
            Intake::Stopped => return,
            Intake::Drained => match port.await_kick() {
                Ok(true) => machine.awake(engine),
                Ok(false) => return,
                Err(error) => return shell.queue_error("command", &error),
            },
        }
    }
    machine.rest(engine);
}

/// Takes all commands that are in an engine's queue now.
pub fn take_all(device: &Device, engine: usize) {
    let waiting = device.machine.outside.command_port(engine).available();
    // Whoever is taking one makes it known first.
    take(device, engine, waiting.map_or(0, usize::from).max(1));
}

fn take(device: &Device, engine: usize, count: usize) -> Intake {
    let (machine, shell) = (&device.machine, &device.machine.outside);
    for _ in 0..count {
        let _taking = shell.intake.get(engine).map(lock);
        if !machine.has_room(engine) {
            return Intake::Stopped;
        }
        match shell.command_port(engine).take(SIZES) {
            Ok(Some(chain)) => start(device, engine, chain),
            Ok(None) => return Intake::Drained,
            Err(error) => {
                return stopped(device, engine, &error);
            }
        }
    }
    Intake::More
}

/// The ring makes no sense. A driver that mends it need not ring the bell unless it was asked to.
fn stopped(device: &Device, engine: usize, error: &Error) -> Intake {
    let shell = &device.machine.outside;
    shell.queue_error("command", error);
    let _ = shell.command_port(engine).await_kick();
    Intake::Stopped
}

/// Starts a command, or answers it at once.
fn start(device: &Device, engine: usize, chain: Chain) {
    let (machine, shell) = (&device.machine, &device.machine.outside);
    shell.stats.commands.bump();
    let request = chain
        .request
        .as_deref()
        .filter(|_| chain.reply.room() >= SIZES.reply)
        .ok_or(STATUS_BAD_MESSAGE)
        .and_then(|bytes| device.features.check_command(bytes))
        .and_then(Request::decode);
    let started = request.and_then(|request| {
        log::trace!("{request:x?}");
        let space = machine.mmu.get(request.context).ok_or(STATUS_BAD_CONTEXT)?;
        let operation = Operation::start(&request.command, &shell.tiles)?;
        Ok((request.context, operation, space))
    });
    let (context, operation, space) = match started {
        Ok(started) => started,
        Err(status) => return refuse(device, engine, chain.reply, status),
    };
    let life = chain.reply.life();
    let job = Box::new(Job::new(operation, chain.reply, space));
    if let Err(job) = machine.submit(engine, life, context, job) {
        refuse(device, engine, job.reply, STATUS_BAD_CONTEXT);
    }
}

fn refuse(device: &Device, engine: usize, reply: ReplySlot, status: u32) {
    let shell = &device.machine.outside;
    shell.guest_error(format_args!("command refused, status {status}"));
    let message = CommandReply {
        status: status.into(),
        fault_access: 0.into(),
        fault_va: 0.into(),
        bytes_done: 0.into(),
        page_requests: 0.into(),
        result: [0; RESULT_BYTES],
    };
    shell.reply(engine, reply, &message);
}

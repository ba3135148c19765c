// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vhost-user and virtqueues: what is between the front end and the device.
//!
//! | thread | queues |
//! |---|---|
//! | 0 | control |
//! | 1 | copy |
//! | 2 | translation, request |
//! | 3 … | one command queue each |
//!
//! So copies and invalidations are never behind user commands.
#![forbid(unsafe_code)]

pub mod chain;
pub mod linger;
pub mod port;
pub mod ring;
pub mod serve;
pub mod serving;
pub mod vhost_user;

use coax_abi::wire::{QUEUE_COMMAND, QUEUE_CONTROL, QUEUE_COPY};

/// Thread of the control queue.
pub const THREAD_CONTROL: usize = 0;
/// Thread of the copy queue.
pub const THREAD_COPY: usize = 1;
/// Thread of the translation queue and of the request queue.
pub const THREAD_TRANSLATION: usize = 2;
/// Thread of the first engine.
pub const THREAD_ENGINE: usize = 3;

/// Chains of a queue that are taken in one round, after which others have their turn: commands
/// that can go on, or the other queue of the thread.
pub const CHAINS_A_ROUND: usize = 64;

/// Thread of a queue.
pub fn thread_of(queue: u16) -> usize {
    match queue {
        QUEUE_CONTROL => THREAD_CONTROL,
        QUEUE_COPY => THREAD_COPY,
        QUEUE_COMMAND.. => THREAD_ENGINE + usize::from(queue - QUEUE_COMMAND),
        _ => THREAD_TRANSLATION,
    }
}

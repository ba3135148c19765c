// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serving a queue whose chains are answered one by one.
#![forbid(unsafe_code)]

use super::linger::Linger;
use super::port::{Answered, Port, Sizes};
use super::CHAINS_A_ROUND;
use crate::device::Device;

/// A queue that is served.
#[derive(Clone, Copy)]
pub struct Served<'d> {
    /// The device.
    pub device: &'d Device,
    /// Number of the queue.
    pub queue: u16,
    /// What it is called in the log.
    pub name: &'static str,
    /// Bounds of its chains.
    pub sizes: Sizes,
    /// Looking for more chains before going to sleep.
    pub linger: Option<&'d Linger>,
}

impl Served<'_> {
    /// Serves the chains of the queue. `handle` makes the reply of a chain from its readable part,
    /// which is `None` if malformed, and the room for the reply: what has too little for its answer
    /// is not to be done.
    pub fn run(self, mut handle: impl FnMut(Option<&[u8]>, usize) -> Vec<u8>) {
        let shell = &self.device.machine.outside;
        let port = shell.port(self.queue);
        if let Err(error) = port.pay() {
            shell.queue_error(self.name, &error);
        }
        for _ in 0..CHAINS_A_ROUND {
            match self.next(port) {
                _ if self.device.shutting_down() => return,
                Ok(Some(chain)) => {
                    let request = chain.request.as_deref();
                    let mut reply = handle(request, chain.reply.room());
                    (shell.deviations.answer)(self.queue, request.unwrap_or_default(), &mut reply);
                    match port.answer(chain.reply, &reply) {
                        Ok(Answered::Delivered) => {}
                        Ok(Answered::NoRoom) => shell.guest_error(format_args!(
                            "{} queue: no room for a reply of {} bytes",
                            self.name,
                            reply.len()
                        )),
                        Err(error) => shell.queue_error(self.name, &error),
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    shell.queue_error(self.name, &error);
                    // A driver that mends the ring need not ring the bell unless it was asked to.
                    let _ = port.await_kick();
                    return;
                }
            }
        }
        shell.wake_queue(self.queue);
    }

    /// The next chain; `None` if the driver was asked to notify of it.
    fn next(&self, port: &Port) -> Result<Option<super::chain::Chain>, super::port::Error> {
        loop {
            if let Some(chain) = port.take(self.sizes)? {
                if let Some(linger) = self.linger {
                    linger.came();
                }
                return Ok(Some(chain));
            }
            let came = || port.available().map_or(true, |count| count > 0);
            let soon = self.linger.is_some_and(|linger| linger.look(came));
            if !soon && !port.await_kick()? {
                return Ok(None);
            }
        }
    }
}

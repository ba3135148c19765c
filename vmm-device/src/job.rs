// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command as the engines have it.
#![forbid(unsafe_code)]

use coax_abi::wire::PAGE_SIZE;

use crate::access::Miss;
use crate::commands::{End, Outcome};
use crate::engine::Operation;
use crate::mmu::atc::Atc;
use crate::mmu::Space;
use crate::resolve::windows;
use crate::sync::Arc;
use crate::transport::chain::ReplySlot;

/// Times in a row that a command may be parked without gaining anything. Pages that the CPU
/// takes back at once can cost some rounds; a driver that answers Success and never translates
/// must not keep a command for ever.
pub const MAX_FRUITLESS: u32 = 256;

/// A command that was taken from its queue and not yet answered.
#[derive(Debug)]
pub struct Job {
    /// What it does.
    pub operation: Operation,
    /// The arithmetic that it announced is to be done.
    pub computes: bool,
    /// Where the reply goes.
    pub reply: ReplySlot,
    /// Address space that it runs in.
    pub space: Arc<Space>,
    /// Requests of it that became page requests.
    pub page_requests: u64,
    /// Times in a row that it was parked without having gained anything.
    fruitless: u32,
    /// [`Operation::advance`] when it was parked last.
    parked_at: Option<u64>,
}

impl Job {
    /// A command that has done nothing yet.
    pub fn new(operation: Operation, reply: ReplySlot, space: Arc<Space>) -> Self {
        Self {
            operation,
            computes: false,
            reply,
            space,
            page_requests: 0,
            fruitless: 0,
            parked_at: None,
        }
    }

    /// Whether it has lost pages before it could use them.
    pub fn contends(&self) -> bool {
        self.fruitless > 0
    }

    /// What a step that missed comes to.
    pub fn missed(&mut self, misses: &[Miss], atc: &Atc) -> Outcome {
        let advance = self.operation.advance();
        if self.parked_at.replace(advance) == Some(advance) {
            self.fruitless += 1;
        } else {
            self.fruitless = 0;
        }
        if self.fruitless == MAX_FRUITLESS {
            let va = misses.first().map_or(0, |miss| miss.va);
            return Outcome::Ended(End::Failure { va });
        }
        // Windows ahead only while it gains something, so that a command which contends for its
        // pages waits for no others, and as many as can be cached as things stand.
        let room = if self.contends() {
            0
        } else {
            atc.room().saturating_sub(misses.len())
        };
        let translated = |miss: &Miss| {
            let vpn = miss.va / PAGE_SIZE;
            atc.leaf(vpn)
                .and_then(|leaf| leaf.page(vpn))
                .is_some_and(|page| page.access.contains(miss.access))
        };
        Outcome::Missing(windows::wants(misses, room, translated))
    }
}

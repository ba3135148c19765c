// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory whose every byte is known, with at most one command under way on it.

use anyhow::Result;
use coax::{CommandId, Error};
use coax_program::errln;

use super::board::{Board, Count};
use super::work::{Expect, Work};
use crate::guest::device::Device;
use crate::guest::fresh;
use crate::guest::memory::{Mapping, HUGE};

/// Where counts go.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'a> {
    /// The board.
    pub board: &'a Board,
    /// The worker's place on it.
    pub worker: usize,
}

impl Tally<'_> {
    /// Adds to a count.
    pub fn add(&self, count: Count, number: u64) {
        self.board.add(self.worker, count, number);
    }

    /// Says what was found wrong, beside the counts.
    fn complain(&self, text: &str) {
        errln!("worker {}: {text}", self.worker);
    }
}

/// Memory and what has to be in it.
#[derive(Debug)]
pub struct Area {
    memory: Mapping,
    model: Vec<u8>,
    pending: Option<(CommandId, Work)>,
}

impl Area {
    /// Fresh memory; it is looked at before it is used.
    pub fn new(len: usize, tally: Tally<'_>) -> Result<Self> {
        let memory = if len % HUGE == 0 {
            Mapping::huge(len)?
        } else {
            Mapping::anonymous(len)?
        };
        let found = fresh::look(&memory);
        if found.bytes > 0 {
            tally.complain(&format!("fresh memory of {len} bytes: {found:?}"));
            tally.add(Count::Foreign, found.bytes);
        }
        let model = memory.to_vec();
        Ok(Area {
            memory,
            model,
            pending: None,
        })
    }

    /// The memory.
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// What has to be in it, but for what a command under way changes.
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.model.len()
    }

    /// Whether a command is under way.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Writes by CPU; no command is under way.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.memory.write(offset, bytes);
        self.model[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Starts a command; none is under way.
    pub fn start(&mut self, device: &Device, work: Work) -> Result<(), Error> {
        let id = device.start(work.command)?;
        self.pending = Some((id, work));
        Ok(())
    }

    /// Waits for the command under way, if there is one, and takes what it came to. One that ended by an error
    /// may have done a part of its work, word by word.
    pub fn finish(&mut self, device: &Device, tally: Tally<'_>) -> Result<(), Error> {
        let Some((id, work)) = self.pending.take() else {
            return Ok(());
        };
        let range = work.offset..work.offset + work.after.len();
        match device.finish(id) {
            Ok(done) => {
                tally.add(Count::Commands, 1);
                let right = match &work.expect {
                    Expect::Nothing => true,
                    Expect::Digest(digest) => done.result == *digest,
                    Expect::Words(words) => words
                        .iter()
                        .enumerate()
                        .all(|(index, word)| done.word(index) == *word),
                };
                if !right {
                    let (opcode, expect) = (work.command.opcode, &work.expect);
                    tally.complain(&format!("opcode {opcode}: {done:?}, expected {expect:?}"));
                    tally.add(Count::Lost, 1);
                }
                self.model[range].copy_from_slice(&work.after);
                Ok(())
            }
            Err(error) => {
                let mut now = vec![0; work.after.len()];
                self.memory.read(work.offset, &mut now);
                let words = now.chunks_exact(8).zip(work.after.chunks_exact(8));
                let words = words.zip(self.model[range.clone()].chunks_exact(8));
                let wrong = words.filter(|((now, after), before)| now != after && now != before);
                let wrong = wrong.count();
                tally.add(Count::Verified, now.len() as u64);
                if wrong > 0 {
                    let opcode = work.command.opcode;
                    tally.complain(&format!(
                        "{wrong} words are neither what they were nor what opcode {opcode} makes of them"
                    ));
                    tally.add(Count::Lost, 8 * wrong as u64);
                }
                self.model[range].copy_from_slice(&now);
                Err(error)
            }
        }
    }

    /// Compares all memory; no command is under way. What is wrong is taken for right from then on.
    pub fn verify(&mut self, tally: Tally<'_>) {
        let now = self.memory.to_vec();
        tally.add(Count::Verified, now.len() as u64);
        if now == self.model {
            return;
        }
        let pairs = now.iter().zip(&self.model);
        let wrong = pairs.filter(|(now, model)| now != model).count();
        let at = now
            .iter()
            .zip(&self.model)
            .position(|(now, model)| now != model);
        let at = at.unwrap_or(0) / 8 * 8;
        tally.complain(&format!(
            "{wrong} of {} bytes are lost; at {at:#x} there is {:02x?} in place of {:02x?}",
            now.len(),
            &now[at..at + 8],
            &self.model[at..at + 8],
        ));
        tally.add(Count::Lost, wrong as u64);
        self.model = now;
    }
}

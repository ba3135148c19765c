// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of this process behind the translations of a context, all of them cached.
#![forbid(unsafe_code)]

use std::sync::Arc;

use anyhow::{bail, Context};
use coax_abi::wire::{PAGE_SIZE, STATUS_OK};
use vhost_device_coax::access::Access;
use vhost_device_coax::command::Command;
use vhost_device_coax::dma::{regions, DeviceMemory, Window};
use vhost_device_coax::engine::gemm::TilePool;
use vhost_device_coax::engine::{Operation, Progress, Step};
use vhost_device_coax::mmu::atc::{Atc, Translation, LEAF_PAGES, SHARED_LEAVES};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Where virtual addresses begin.
pub const VA: u64 = 0x7f00_0000_0000;

/// How virtual addresses are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// 2 MiB in one piece.
    Runs,
    /// Each page away from its neighbours.
    Pages,
}

/// Memory of a context.
pub struct Memory {
    memory: GuestMemoryMmap,
    atc: Atc,
    mapping: Mapping,
    pages: u64,
}

impl Memory {
    /// `bytes` of zeros from [`VA`] on.
    pub fn new(bytes: u64, mapping: Mapping) -> anyhow::Result<Self> {
        let leaves = bytes.div_ceil(LEAF_PAGES * PAGE_SIZE);
        if leaves > SHARED_LEAVES as u64 / 2 {
            bail!("{bytes} bytes are more than the translation cache covers");
        }
        let pages = leaves * LEAF_PAGES;
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), (pages * PAGE_SIZE) as usize)])
                .context("Cannot map memory")?;
        let mut this = Self {
            memory,
            atc: Atc::new(Arc::default()),
            mapping,
            pages,
        };
        for vpn in 0..pages {
            this.atc.fill(Translation {
                vpn: VA / PAGE_SIZE + vpn,
                gpa: this.place(vpn * PAGE_SIZE),
                npages: 1,
                access: Access::from_bits(3),
            });
        }
        Ok(this)
    }

    /// Where the byte at `VA + offset` lies.
    fn place(&self, offset: u64) -> u64 {
        match self.mapping {
            Mapping::Runs => offset,
            // An odd number is prime to the number of pages, which is a multiple of 512, if
            // that has no odd factor in common with it; 1000003 is prime itself.
            Mapping::Pages => {
                let page = (offset / PAGE_SIZE) * 1_000_003 % self.pages;
                page * PAGE_SIZE + offset % PAGE_SIZE
            }
        }
    }

    /// Writes bytes at `VA + offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let rest_of_page = (PAGE_SIZE - at % PAGE_SIZE) as usize;
            let n = rest_of_page.min(bytes.len() - done);
            self.memory
                .write_slice(&bytes[done..done + n], GuestAddress(self.place(at)))?;
            done += n;
        }
        Ok(())
    }

    /// Reads bytes at `VA + offset`, which is the start of a page.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> anyhow::Result<()> {
        let mut at = offset;
        for part in bytes.chunks_mut(PAGE_SIZE as usize) {
            self.memory.read_slice(part, GuestAddress(self.place(at)))?;
            at += PAGE_SIZE;
        }
        Ok(())
    }

    /// Runs a command to its end, step by step as an engine does.
    pub fn run(&self, command: &Command, tiles: &TilePool) -> anyhow::Result<Progress> {
        let mut operation = Operation::start(command, tiles)
            .map_err(|status| anyhow::anyhow!("Command refused, status {status}"))?;
        loop {
            let regions = regions(&self.memory);
            let mut window = Window::new(&self.atc, &regions, DeviceMemory::default());
            match operation.step(&mut window) {
                Step::More => {}
                Step::Compute => operation.compute(),
                Step::Done(STATUS_OK) => return Ok(operation.progress()),
                other => bail!("Command stopped: {other:?}"),
            }
        }
    }
}

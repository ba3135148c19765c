// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands of any kind on a small memory with rights per page.
#![no_main]

use coax_abi::wire;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vhost_device_coax::access::Access;
use vhost_device_coax::command::{Command, Request};
use vhost_device_coax::engine::gemm::TilePool;
use vhost_device_coax::engine::memory::{DmaMemory, Pair, PairStop, Stop};
use vhost_device_coax::engine::{Operation, Step};
use vm_memory::VolatileSlice;

const PAGE: u64 = wire::PAGE_SIZE;
/// Pages of the memory: several pieces, yet cleared quickly for each input.
const PAGES: usize = 16;
/// Where the memory begins: neither 0 nor at a border of a larger unit.
const BASE: u64 = 0x7f00_0000_3000;
/// Opcodes tried: all there are, and one there is not.
const OPCODES: u8 = wire::OP_COPY_ROWS as u8 + 2;
/// Steps before the target loses its patience: a command may be as long as it likes.
const MOST_STEPS: usize = 200;

/// An argument: most are made to fit the memory, so that commands get somewhere.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Argument {
    Address(u16),
    Small(u16),
    Any(u64),
}

impl Argument {
    fn value(self) -> u64 {
        match self {
            // A little more than there is.
            Argument::Address(at) => BASE - PAGE + u64::from(at) % ((PAGES as u64 + 2) * PAGE),
            Argument::Small(value) => value.into(),
            Argument::Any(value) => value,
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    opcode: u8,
    arguments: Vec<Argument>,
    rights: [u8; PAGES],
    /// Words put into the memory: pointers, for lists and trees.
    words: Vec<(u16, Argument)>,
}

/// The memory: pages in a row, each in a piece of its own.
struct Memory<'m> {
    bytes: VolatileSlice<'m>,
    rights: [Access; PAGES],
}

impl<'m> DmaMemory<'m> for Memory<'m> {
    fn piece(&mut self, va: u64, len: u64, access: Access) -> Result<VolatileSlice<'m>, Stop> {
        assert!(
            len > 0 && va.checked_add(len).is_some(),
            "{len} bytes at {va:#x}"
        );
        let offset = va.checked_sub(BASE).ok_or(Stop::Miss(va))?;
        let page = usize::try_from(offset / PAGE).map_err(|_| Stop::Miss(va))?;
        match self.rights.get(page) {
            Some(rights) if rights.contains(access) => {}
            _ => return Err(Stop::Miss(va)),
        }
        let len = len.min(PAGE - offset % PAGE);
        let piece = self.bytes.subslice(offset as usize, len as usize);
        Ok(piece.expect("a page of the memory"))
    }

    fn pair(&mut self, src: u64, dst: u64, len: u64) -> Result<Pair<'m>, PairStop> {
        match (
            self.piece(src, len, Access::READ),
            self.piece(dst, len, Access::WRITE),
        ) {
            (Ok(src), Ok(dst)) => Ok((src, dst)),
            (src, dst) => Err(PairStop {
                src: src.err(),
                dst: dst.err(),
            }),
        }
    }
}

fuzz_target!(|input: Input| {
    let mut argument = [0; wire::COMMAND_ARGS];
    for (to, from) in argument.iter_mut().zip(&input.arguments) {
        *to = from.value();
    }
    let message = [
        u32::from(input.opcode % OPCODES).to_le_bytes().to_vec(),
        // Context, generation and what is reserved.
        vec![0; 12],
        argument
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    ]
    .concat();
    let Ok(request) = Request::decode(&message) else {
        return;
    };

    let mut before = vec![0; PAGES * PAGE as usize];
    for (at, word) in &input.words {
        let at = usize::from(*at) % (before.len() - 8);
        before[at..at + 8].copy_from_slice(&word.value().to_le_bytes());
    }
    let mut after = before.clone();
    let rights = input.rights.map(|bits| Access::from_bits(bits.into()));
    let done = {
        let bytes = VolatileSlice::from(after.as_mut_slice());
        run(&request.command, &mut Memory { bytes, rights })
    };
    let Some(done) = done else { return };

    let changed = |at: &usize| before[*at] != after[*at];
    for at in (0..before.len()).filter(changed) {
        assert!(
            rights[at / PAGE as usize].contains(Access::WRITE),
            "{at:#x} is read-only"
        );
        let va = BASE + at as u64;
        let allowed = match request.command {
            Command::Copy { dst, .. } | Command::Fill { dst, .. } => dst..dst + done,
            Command::CopyRows(args) => match done.checked_sub(1).map(|last| last / args.row) {
                Some(last) => args.dst..args.dst + last * args.dst_stride + args.row,
                None => 0..0,
            },
            Command::Histogram { dst, .. } => dst..dst.saturating_add(256 * 8),
            Command::Sgemm(_) | Command::Dgemm(_) => BASE..u64::MAX,
            Command::FetchAdd(args) => match (done / args.bytes).checked_sub(1) {
                Some(last) => args.va..args.va + last * args.stride + args.bytes,
                None => 0..0,
            },
            Command::CompareSwap(args) => args.va..args.va + done,
            _ => 0..0,
        };
        assert!(
            allowed.contains(&va),
            "{va:#x} was written, allowed is {allowed:x?}"
        );
    }
});

/// Runs the command until it is done or waits for memory; returns the bytes it reports as done.
fn run(command: &Command, memory: &mut Memory<'_>) -> Option<u64> {
    let mut operation = Operation::start(command, &TilePool::default()).ok()?;
    for _ in 0..MOST_STEPS {
        match operation.step(memory) {
            Step::More => {}
            Step::Compute => operation.compute(),
            Step::Done(_) => break,
            Step::Missing(misses) => {
                assert!(!misses.is_empty());
                // What is missing is missing: asking again changes nothing.
                let advance = operation.advance();
                operation.step(memory);
                assert_eq!(operation.advance(), advance);
                break;
            }
            Step::BadGpa(va) => panic!("{va:#x} has no bad translation"),
        }
    }
    Some(operation.progress().bytes_done)
}

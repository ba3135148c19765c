// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Atomic operations on little-endian words: FetchAdd, and compare and swap.
//!
//! Each is a read-modify-write of the host on the guest's memory, so it is atomic towards the
//! other engines as well as towards CPUs that use the memory at the same time.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use coax_abi::wire::{PAGE_SIZE, STATUS_BAD_ARGUMENT, STATUS_OK};
use vm_memory::{VolatileMemory, VolatileSlice};

use super::memory::{DmaMemory, Stop};
use super::{check_range, pair, stopped, Progress, Step};
use crate::access::Access;

/// Words that one step changes at most. A contended word takes up to a microsecond.
const STEP_WORDS: u64 = 4096;

/// Arguments of FetchAdd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchAddArgs {
    /// First word.
    pub va: u64,
    /// Bytes of a word, 4 or 8.
    pub bytes: u64,
    /// What is added to each word.
    pub addend: u64,
    /// Words.
    pub words: u64,
    /// Bytes from one word to the next; 0 means the same word again and again.
    pub stride: u64,
}

/// Arguments of compare and swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareSwapArgs {
    /// The word.
    pub va: u64,
    /// Bytes of the word, 4 or 8.
    pub bytes: u64,
    /// The word is swapped if it has this value.
    pub expected: u64,
    /// The value that it gets then.
    pub desired: u64,
}

/// What is done to a word.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add(u64),
    Swap { expected: u64, desired: u64 },
}

impl Change {
    /// Changes a word in memory and returns its value before; `None` if it is not aligned.
    fn apply(self, bytes: &VolatileSlice<'_>, width: Width) -> Option<u64> {
        Some(match width {
            // The values were checked to have no more than the 32 bits.
            Width::Four => self.apply_u32(bytes.get_atomic_ref(0).ok()?).into(),
            Width::Eight => self.apply_u64(bytes.get_atomic_ref(0).ok()?),
        })
    }

    fn apply_u32(self, word: &AtomicU32) -> u32 {
        match self {
            Self::Add(addend) if cfg!(target_endian = "little") => {
                word.fetch_add(addend as u32, SeqCst)
            }
            Self::Add(addend) => update_u32(word, |value| Some(value.wrapping_add(addend as u32))),
            Self::Swap { expected, desired } => update_u32(word, |value| {
                (value == expected as u32).then_some(desired as u32)
            }),
        }
    }

    fn apply_u64(self, word: &AtomicU64) -> u64 {
        match self {
            Self::Add(addend) if cfg!(target_endian = "little") => word.fetch_add(addend, SeqCst),
            Self::Add(addend) => update_u64(word, |value| Some(value.wrapping_add(addend))),
            Self::Swap { expected, desired } => {
                update_u64(word, |value| (value == expected).then_some(desired))
            }
        }
    }
}

/// Changes a little-endian word as `change` says; returns its value before.
fn update_u32(word: &AtomicU32, change: impl Fn(u32) -> Option<u32>) -> u32 {
    let change = |value| change(u32::from_le(value)).map(u32::to_le);
    let (Ok(before) | Err(before)) = word.fetch_update(SeqCst, SeqCst, change);
    u32::from_le(before)
}

/// As [`update_u32`] for 64 bits.
fn update_u64(word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> u64 {
    let change = |value| change(u64::from_le(value)).map(u64::to_le);
    let (Ok(before) | Err(before)) = word.fetch_update(SeqCst, SeqCst, change);
    u64::from_le(before)
}

/// Size of a word.
#[derive(Clone, Copy, Debug)]
enum Width {
    Four,
    Eight,
}

impl Width {
    /// The size of `bytes`, if the places are aligned to it and the values fit.
    fn new(bytes: u64, places: [u64; 2], values: [u64; 2]) -> Result<Self, u32> {
        let (width, most) = match bytes {
            4 => (Self::Four, u64::from(u32::MAX)),
            8 => (Self::Eight, u64::MAX),
            _ => return Err(STATUS_BAD_ARGUMENT),
        };
        let aligned = places.iter().all(|place| place % bytes == 0);
        let fits = values.iter().all(|&value| value <= most);
        if aligned && fits {
            Ok(width)
        } else {
            Err(STATUS_BAD_ARGUMENT)
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Changes the word at `va`, which is aligned, and returns its value before.
    fn change<'m>(
        self,
        memory: &mut impl DmaMemory<'m>,
        va: u64,
        change: Change,
    ) -> Result<u64, Stop> {
        let bytes = memory.piece(va, self.bytes(), Access::ATOMIC)?;
        // An aligned word lies in one page, which is aligned in the host as in the guest.
        change.apply(&bytes, self).ok_or_else(|| {
            log::error!("word at {va:#x} is not aligned in memory");
            Stop::BadGpa(va)
        })
    }
}

/// State of a FetchAdd.
#[derive(Debug)]
pub struct FetchAdd {
    args: FetchAddArgs,
    width: Width,
    /// Bytes from the first word to the end of the last one.
    extent: u64,
    done: u64,
    first: u64,
}

impl FetchAdd {
    /// Starts a FetchAdd, or refuses it with a `STATUS_*`.
    pub fn new(args: FetchAddArgs) -> Result<Self, u32> {
        let width = Width::new(args.bytes, [args.va, args.stride], [args.addend, 0])?;
        let extent = match args.words.checked_sub(1) {
            Some(steps) => steps
                .checked_mul(args.stride)
                .and_then(|last| last.checked_add(args.bytes))
                .ok_or(STATUS_BAD_ARGUMENT)?,
            None => 0,
        };
        check_range(args.va, extent)?;
        Ok(Self {
            args,
            width,
            extent,
            done: 0,
            first: 0,
        })
    }

    /// Changes up to `STEP_WORDS` words.
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        for _ in 0..STEP_WORDS {
            if self.done == self.args.words {
                return Step::Done(STATUS_OK);
            }
            let offset = self.done * self.args.stride;
            let va = self.args.va + offset;
            match self.width.change(memory, va, Change::Add(self.args.addend)) {
                Ok(before) if self.done == 0 => self.first = before,
                Ok(_) => {}
                Err(stop) => return stopped(stop, self.certain(offset), Access::ATOMIC, false),
            }
            self.done += 1;
            if memory.interrupted() {
                break;
            }
        }
        Step::More
    }

    /// Bytes from a word on that are needed in any case: all if no page lies between two words.
    fn certain(&self, offset: u64) -> u64 {
        if self.args.stride.saturating_sub(self.args.bytes) < PAGE_SIZE {
            self.extent - offset
        } else {
            self.args.bytes
        }
    }

    /// Bytes of the words changed, each time counted; the first word before and the words.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.done.saturating_mul(self.args.bytes),
            result: pair(self.first, self.done),
        }
    }

    /// Words changed.
    pub fn advance(&self) -> u64 {
        self.done
    }
}

/// State of a compare and swap.
#[derive(Debug)]
pub struct CompareSwap {
    args: CompareSwapArgs,
    width: Width,
    before: Option<u64>,
}

impl CompareSwap {
    /// Starts a compare and swap, or refuses it with a `STATUS_*`.
    pub fn new(args: CompareSwapArgs) -> Result<Self, u32> {
        let width = Width::new(args.bytes, [args.va, 0], [args.expected, args.desired])?;
        check_range(args.va, args.bytes)?;
        Ok(Self {
            args,
            width,
            before: None,
        })
    }

    /// Does it all.
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        if self.before.is_none() {
            let swap = Change::Swap {
                expected: self.args.expected,
                desired: self.args.desired,
            };
            match self.width.change(memory, self.args.va, swap) {
                Ok(before) => self.before = Some(before),
                Err(stop) => return stopped(stop, self.args.bytes, Access::ATOMIC, false),
            }
        }
        Step::Done(STATUS_OK)
    }

    /// Bytes of the word if it was compared; the word before.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.before.map_or(0, |_| self.args.bytes),
            result: pair(self.before.unwrap_or(0), 0),
        }
    }

    /// Whether the word was compared.
    pub fn advance(&self) -> u64 {
        self.before.map_or(0, |_| 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(va: u64, bytes: u64, addend: u64, words: u64, stride: u64) -> Result<FetchAdd, u32> {
        FetchAdd::new(FetchAddArgs {
            va,
            bytes,
            addend,
            words,
            stride,
        })
    }

    #[test]
    fn fetch_add_refuses_what_is_unaligned_too_large_or_wraps() {
        assert!(add(0x1004, 4, u32::MAX.into(), 2, 4).is_ok());
        for refused in [
            add(0x1004, 8, 1, 1, 0),
            add(0x1002, 4, 1, 1, 0),
            add(0x1000, 8, 1, 2, 4),
            add(0x1000, 2, 1, 1, 0),
            add(0x1000, 4, 1 << 32, 1, 0),
            add(0x1000, 8, 1, u64::MAX, 8),
            add(u64::MAX - 7, 8, 1, 1, 0),
            add(0x1000, 8, 1, 3, 1 << 63),
            // Not even for no words.
            add(0x1001, 8, 1, 0, 0),
        ] {
            assert_eq!(refused.map(|_| ()), Err(STATUS_BAD_ARGUMENT));
        }
        assert!(add(0x1000, 8, 1, u64::MAX, 0).is_ok());
        assert!(add(u64::MAX - 7, 8, 1, 0, u64::MAX - 7).is_ok());
    }

    #[test]
    fn pages_between_words_far_apart_are_not_certain() {
        let certain = |stride| add(0x1000, 8, 1, 4, stride).map(|op| op.certain(stride));
        assert_eq!(certain(0), Ok(8));
        assert_eq!(certain(8), Ok(24));
        assert_eq!(certain(PAGE_SIZE), Ok(2 * PAGE_SIZE + 8));
        assert_eq!(certain(2 * PAGE_SIZE), Ok(8));
    }

    #[test]
    fn compare_swap_refuses_values_that_do_not_fit() {
        let swap = |va, bytes, expected, desired| {
            CompareSwap::new(CompareSwapArgs {
                va,
                bytes,
                expected,
                desired,
            })
            .map(|_| ())
        };
        assert_eq!(swap(0, 4, 1, u32::MAX.into()), Ok(()));
        assert_eq!(swap(0, 8, u64::MAX, u64::MAX), Ok(()));
        assert_eq!(swap(0, 4, 1 << 32, 0), Err(STATUS_BAD_ARGUMENT));
        assert_eq!(swap(0, 4, 0, 1 << 32), Err(STATUS_BAD_ARGUMENT));
        assert_eq!(swap(4, 8, 0, 0), Err(STATUS_BAD_ARGUMENT));
        assert_eq!(swap(0, 0, 0, 0), Err(STATUS_BAD_ARGUMENT));
    }

    #[test]
    fn words_wrap_within_their_width() {
        let word = AtomicU32::new(u32::MAX.to_le());
        assert_eq!(Change::Add(2).apply_u32(&word), u32::MAX);
        let swap = |expected, desired| Change::Swap { expected, desired }.apply_u32(&word);
        assert_eq!(swap(1, 7), 1);
        assert_eq!(swap(1, 9), 7);
        assert_eq!(swap(7, 3), 7);
        assert_eq!(u32::from_le(word.into_inner()), 3);
        let word = AtomicU64::new(u64::MAX.to_le());
        assert_eq!(Change::Add(2).apply_u64(&word), u64::MAX);
        assert_eq!(u64::from_le(word.into_inner()), 1);
    }
}

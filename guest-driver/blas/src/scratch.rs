// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory beside the program's: copies of blocks of C, and blocks that are put together for the device.
//!
//! It is kept between calls, so that it stays in device memory, and a child of `fork` does not get it:
//! the pages of nobody's data would be copied for nothing.
// UNSAFETY: memory is mapped and unmapped.
#![expect(unsafe_code)]

use std::sync::Mutex;

use crate::matrix::Matrix;
use crate::real::Real;
use crate::view::ViewMut;

/// Pieces of memory that are kept.
const KEPT: usize = 4;

/// A piece of memory of its own.
///
/// # Invariants
///
/// `at` … `at + bytes` is a mapping that nobody else knows of.
#[derive(Debug)]
pub struct Scratch {
    at: *mut u8,
    bytes: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread.
unsafe impl Send for Scratch {}

impl Scratch {
    fn map(bytes: usize) -> Option<Self> {
        // SAFETY: A new mapping anywhere disturbs nothing that exists.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return None;
        }
        // Without it a child gets the pages as well, which costs time and nothing else.
        // SAFETY: The range is the mapping made above.
        unsafe { libc::madvise(at, bytes, libc::MADV_DONTFORK) };
        // INVARIANT: The kernel gave this range to nobody else.
        Some(Self {
            at: at.cast(),
            bytes,
        })
    }

    /// Has the memory in pages of 4 KiB, as small matrices of programs are.
    pub fn in_small_pages(self) -> Self {
        // A kernel that has no other pages refuses it, rightly.
        // SAFETY: By the invariant the mapping is this one's.
        unsafe { libc::madvise(self.at.cast(), self.bytes, libc::MADV_NOHUGEPAGE) };
        self
    }

    /// A dense matrix in it.
    ///
    /// # Panics
    ///
    /// If it is not large enough.
    pub fn matrix<T: Real>(&mut self, rows: usize, cols: usize) -> ViewMut<'_, T> {
        // SAFETY: The matrix lies within the mapping, which is borrowed: by the invariant nobody else knows of
        // it. Dense columns have no element in common.
        unsafe { ViewMut::new(self.dense(&mut 0, rows, cols)) }
    }

    /// Dense matrices of one behind the other.
    ///
    /// # Panics
    ///
    /// If it is not large enough.
    pub fn matrices<T: Real>(&mut self, shapes: &[(usize, usize)]) -> Vec<ViewMut<'_, T>> {
        let mut used = 0;
        let next = |&(rows, cols): &(usize, usize)| {
            // SAFETY: As for `matrix`; those before it lie before the bytes that are used.
            unsafe { ViewMut::new(self.dense(&mut used, rows, cols)) }
        };
        shapes.iter().map(next).collect()
    }

    /// A matrix from byte `used` on, which is moved behind it.
    fn dense<T: Real>(&self, used: &mut usize, rows: usize, cols: usize) -> Matrix<T> {
        let elements = rows.checked_mul(cols);
        let bytes = elements.and_then(|count| count.checked_mul(size_of::<T>()));
        let end = bytes.and_then(|bytes| used.checked_add(bytes));
        let end = end.filter(|&end| end <= self.bytes);
        let start = std::mem::replace(used, end.expect("there is room for it"));
        Matrix {
            at: self.at.wrapping_add(start).cast(),
            rows,
            cols,
            ld: rows.max(1),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: By the invariant the mapping is this one's, and views of it have ended.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

/// Pieces of memory that no call uses at the moment.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Scratch>>);

impl Pool {
    /// An empty pool.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Memory of at least so many bytes, or `None` if the system has none.
    pub fn take(&self, bytes: usize) -> Option<Scratch> {
        let kept = self.0.lock().ok().and_then(|mut kept| {
            let fitting = kept.iter().position(|scratch| scratch.bytes >= bytes);
            fitting.map(|index| kept.swap_remove(index))
        });
        kept.or_else(|| Scratch::map(bytes.max(1).next_power_of_two()))
    }

    /// Gives memory back. Only a few pieces are kept, the larger ones before the others.
    pub fn give(&self, scratch: Scratch) {
        let Ok(mut kept) = self.0.lock() else { return };
        kept.push(scratch);
        kept.sort_by_key(|scratch| std::cmp::Reverse(scratch.bytes));
        let count = kept.len().min(KEPT);
        let surplus = kept.split_off(count);
        drop(kept);
        drop(surplus);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, AssertUnwindSafe};

    use super::*;

    #[test]
    fn memory_given_back_is_taken_again() {
        let pool = Pool::new();
        let mut first = pool.take(5000).expect("there is memory");
        let at = first.matrix::<f64>(2, 2).matrix();
        pool.give(first);
        let mut second = pool.take(4000).expect("there is memory");
        assert_eq!(second.matrix::<f64>(2, 2).matrix(), at);
    }

    #[test]
    fn matrices_lie_one_behind_the_other_as_far_as_there_is_room() {
        let mut scratch = Scratch::map(4096).expect("there is memory");
        let matrices = scratch.matrices::<f64>(&[(3, 4), (0, 9), (16, 31)]);
        let starts: Vec<_> = matrices
            .iter()
            .map(|matrix| matrix.matrix().address() - matrices[0].matrix().address())
            .collect();
        assert_eq!(starts, [0, 96, 96]);
        for shapes in [[(16, 32), (1, 1)], [(usize::MAX, 2), (1, 1)]] {
            let scratch = AssertUnwindSafe(Scratch::map(4096).expect("there is memory"));
            let taken = catch_unwind(move || {
                let mut scratch = scratch;
                scratch.matrices::<f64>(&shapes).len()
            });
            assert!(taken.is_err(), "{shapes:?}");
        }
    }

    #[test]
    fn pool_keeps_the_largest_of_many() {
        let pool = Pool::new();
        let many: Vec<_> = (0..KEPT + 3)
            .map(|n| pool.take(4096 << n).expect("there is memory"))
            .collect();
        for scratch in many {
            pool.give(scratch);
        }
        let kept = pool.0.lock().expect("nobody panicked");
        assert_eq!(kept.len(), KEPT);
        assert!(kept.iter().all(|scratch| scratch.bytes >= 4096 << 3));
    }
}

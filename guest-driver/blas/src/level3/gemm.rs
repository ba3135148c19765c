// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix product, in pieces of C that the device's engines do at the same time.
//!
//! If the old C counts (beta is not 0), the device copies each piece aside before it makes it: a
//! command that fails has written a part of the piece, which is then put back as it was and made by the
//! CPU. If beta is 0 nothing is copied, for C is not read. After the first failure the rest of the
//! call is the CPU's.
// UNSAFETY: the CPU's BLAS is called, and blocks are put back, by bare addresses.
#![expect(unsafe_code)]

use crate::cpu::{Cpu, Int};
use crate::device::{copy, Device, Product};
use crate::level3::Offload;
use crate::matrix::Matrix;
use crate::outcome::Reason;
use crate::real::Real;

/// Most bytes of C that are copied aside at a time.
const SAVED_BYTES: usize = 32 << 20;
/// Operations (multiplications) below which a product is not cut up for the engines: a tile or two.
const PIECE_VOLUME: usize = 256 * 256 * 256;
/// Operations below which a part of a larger call is not worth a command.
pub const LEAST_VOLUME: usize = 32 * 32 * 32;
/// Pieces are cut at multiples of this, which suits the device's tiles.
const ALIGN: usize = 16;

/// A part of C: first row and column, rows and columns.
type Piece = (usize, usize, usize, usize);

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Makes the product, wherever.
    ///
    /// # Safety
    ///
    /// A and B may be read, C may be read and written, nobody else accesses them but to read A or B,
    /// and C has no element in common with them.
    pub unsafe fn gemm(&mut self, product: &Product<T>) {
        let (m, n, k) = (product.c.rows, product.c.cols, product.depth());
        if m == 0 || n == 0 {
            return;
        }
        let volume = m.saturating_mul(n).saturating_mul(k);
        if volume < LEAST_VOLUME {
            // SAFETY: As the caller promises.
            return unsafe { product.on_cpu(self.cpu) };
        }
        let saved = product.beta != T::ZERO;
        let engines = self.device.engines().max(1);
        let most = if saved {
            SAVED_BYTES / size_of::<T>() / engines
        } else {
            usize::MAX
        };
        for group in pieces((m, n), volume, engines, most).chunks(engines) {
            let parts: Vec<Product<T>> = group
                .iter()
                .map(|&(row, col, rows, cols)| product.block(row, col, rows, cols))
                .collect();
            // SAFETY: Pieces are parts of the matrices that the caller speaks of, and have no element of
            // C in common.
            unsafe { self.group(&parts, saved) };
        }
    }

    /// Makes products that do not depend on each other.
    ///
    /// # Safety
    ///
    /// As [`gemm`](Self::gemm), for each of them.
    unsafe fn group(&mut self, parts: &[Product<T>], saved: bool) {
        if self.outcome.failure.is_some() {
            for part in parts {
                // SAFETY: As the caller promises.
                unsafe { part.on_cpu(self.cpu) };
            }
            return;
        }
        if !saved {
            let commands: Vec<_> = parts.iter().map(Product::command).collect();
            // SAFETY: As the caller promises.
            let done = unsafe { self.device.run(&commands) };
            for (part, done) in parts.iter().zip(done) {
                if !self.noted(done) {
                    // SAFETY: As the caller promises; the device has let go. C is not read.
                    unsafe { part.on_cpu(self.cpu) };
                }
            }
            return;
        }
        let bytes = |part: &Product<T>| part.c.bytes() as usize;
        let Some(scratch) = self.pool.take(parts.iter().map(bytes).sum()) else {
            self.outcome.failed(Reason::Busy);
            // SAFETY: As the caller promises; this time the CPU does it.
            return unsafe { self.group(parts, saved) };
        };
        let mut offset = 0;
        let copies: Vec<Matrix<T>> = parts
            .iter()
            .map(|part| {
                let copy = scratch.matrix(offset, part.c.rows, part.c.cols);
                offset += bytes(part);
                copy
            })
            .collect();
        let saves: Vec<_> = parts
            .iter()
            .zip(&copies)
            .map(|(part, to)| copy(to, &part.c))
            .collect();
        // SAFETY: C is the caller's to read, and the copies lie in memory that only this call uses.
        let saved_all = unsafe { self.device.run(&saves) };
        if let Some(reason) = saved_all.into_iter().find_map(Result::err) {
            self.outcome.failed(reason);
            self.pool.give(scratch);
            // SAFETY: As the caller promises; C is untouched, and this time the CPU makes it.
            return unsafe { self.group(parts, saved) };
        }
        let commands: Vec<_> = parts.iter().map(Product::command).collect();
        // SAFETY: As the caller promises.
        let done = unsafe { self.device.run(&commands) };
        for ((part, saved), done) in parts.iter().zip(&copies).zip(done) {
            if !self.noted(done) {
                // SAFETY: The device has let go; C and its copy have the same shape, and the copy was
                // made to its end.
                unsafe {
                    put_back(&part.c, saved);
                    part.on_cpu(self.cpu);
                }
            }
        }
        self.pool.give(scratch);
    }

    /// Counts a product; false if the device did not make it.
    fn noted(&mut self, done: Result<(), Reason>) -> bool {
        match done {
            Ok(()) => self.outcome.on_device += 1,
            Err(reason) => self.outcome.failed(reason),
        }
        done.is_ok()
    }
}

impl<T: Real> Product<T> {
    /// Lets the CPU make the product.
    ///
    /// # Safety
    ///
    /// A and B may be read, C may be read and written, and nobody else writes to them.
    pub unsafe fn on_cpu(&self, cpu: &Cpu<T>) {
        let flag = |trans: bool| if trans { c"T" } else { c"N" };
        // Sizes came from integers of this type.
        let int = |size: usize| size as Int;
        // SAFETY: The shape is one that the caller of the BLAS gave, or a part of it, with the leading
        // dimensions that belong to it.
        unsafe {
            (cpu.gemm)(
                flag(self.a.trans).as_ptr(),
                flag(self.b.trans).as_ptr(),
                &int(self.c.rows),
                &int(self.c.cols),
                &int(self.depth()),
                &self.alpha,
                self.a.stored.at,
                &int(self.a.stored.ld),
                self.b.stored.at,
                &int(self.b.stored.ld),
                &self.beta,
                self.c.at,
                &int(self.c.ld),
                1,
                1,
            );
        }
    }
}

/// Copies a matrix to another one of its shape, by the CPU.
///
/// # Safety
///
/// Elements of `from` may be read and those of `to` written; they have none in common.
pub unsafe fn put_back<T: Copy>(to: &Matrix<T>, from: &Matrix<T>) {
    for col in 0..to.cols {
        // SAFETY: A column of each, of the same length, as the caller promises.
        unsafe {
            std::ptr::copy_nonoverlapping(from.element(0, col), to.element(0, col), to.rows);
        }
    }
}

/// Cuts C along its longer side into pieces for the engines, none of more than `most` elements (but for
/// a single row or column).
fn pieces((m, n): (usize, usize), volume: usize, engines: usize, most: usize) -> Vec<Piece> {
    let worth = (volume / PIECE_VOLUME).clamp(1, engines);
    let needed = m.saturating_mul(n).div_ceil(most);
    let count = needed.next_multiple_of(worth);
    let long = m.max(n);
    let bound = (most / m.min(n)).max(1);
    let length = long.div_ceil(count).next_multiple_of(ALIGN).min(bound);
    (0..long)
        .step_by(length)
        .map(|start| {
            let length = length.min(long - start);
            if m > n {
                (start, 0, length, n)
            } else {
                (0, start, m, length)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level3::reference::{Bench, Fault, Shape};

    /// Pieces cover C once and keep the bound.
    fn check(m: usize, n: usize, engines: usize, most: usize) -> usize {
        let pieces = pieces((m, n), m * n * 512, engines, most);
        let mut hits = vec![0; m * n];
        for &(row, col, rows, cols) in &pieces {
            assert!(rows * cols <= most.max(m.min(n)), "{rows}×{cols}");
            for j in col..col + cols {
                for i in row..row + rows {
                    hits[i + j * m] += 1;
                }
            }
        }
        assert!(hits.iter().all(|&hit| hit == 1));
        pieces.len()
    }

    #[test]
    fn pieces_cover_c_once_and_keep_engines_busy() {
        assert_eq!(check(700, 900, 1, usize::MAX), 1);
        assert_eq!(check(700, 900, 2, usize::MAX), 2);
        assert_eq!(check(900, 7, 2, 1000), 7);
        assert_eq!(check(5, 901, 2, 17), 301);
        // Not worth cutting up.
        assert_eq!(check(40, 40, 2, usize::MAX), 1);
    }

    #[test]
    fn every_transposition_and_factor_gives_the_cpus_result() {
        for trans_a in [false, true] {
            for trans_b in [false, true] {
                for (alpha, beta) in [(1.0, 0.0), (-2.0, 1.0), (0.5, -3.0), (0.0, 2.0)] {
                    let mut bench = Bench::<f64>::new(Fault::Never);
                    let shape = Shape {
                        m: 90,
                        n: 70,
                        k: 65,
                    };
                    bench.check_gemm(shape, trans_a, trans_b, alpha, beta);
                    assert_eq!(bench.outcome().failure, None);
                    assert!(bench.outcome().on_device > 0);
                }
            }
        }
    }

    #[test]
    fn c_is_cut_up_for_the_engines_and_not_read_where_beta_is_zero() {
        let mut bench = Bench::<f32>::new(Fault::Never);
        bench.poison_c = true;
        let shape = Shape {
            m: 300,
            n: 520,
            k: 300,
        };
        bench.check_gemm(shape, false, false, 1.0, 0.0);
        assert_eq!(bench.outcome().on_device, 2);
        // Nothing was copied aside.
        assert_eq!(bench.commands(), 2);
    }

    #[test]
    fn product_that_fails_half_way_is_made_by_the_cpu_from_the_old_c() {
        for beta in [0.0, 1.0, -0.5] {
            for at in 0..4 {
                let mut bench = Bench::<f64>::new(Fault::HalfWay(at));
                let shape = Shape {
                    m: 520,
                    n: 300,
                    k: 300,
                };
                bench.check_gemm(shape, true, false, 1.5, beta);
                let failed = at < bench.commands();
                assert_eq!(bench.outcome().failure.is_some(), failed, "{beta} {at}");
            }
        }
    }

    #[test]
    fn absent_memory_for_copies_leaves_the_call_to_the_cpu() {
        let mut bench = Bench::<f64>::new(Fault::HalfWay(0));
        let shape = Shape {
            m: 64,
            n: 64,
            k: 64,
        };
        bench.check_gemm(shape, false, true, 1.0, 1.0);
        // The copy failed, so nothing was asked of the device after it.
        assert_eq!(bench.commands(), 1);
        assert_eq!(bench.outcome().on_device, 0);
    }
}

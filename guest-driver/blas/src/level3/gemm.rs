// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix product, in pieces of C that the device's engines do at the same time.
//!
//! If the old C counts (beta is not 0), the device copies each piece aside before it makes it: a
//! command that fails has written a part of the piece, which is then put back as it was and made by the
//! CPU. If beta is 0 nothing is copied, for C is not read. After the first failure the rest of the
//! call is the CPU's.

use crate::device::{Device, Work};
use crate::level3::Offload;
use crate::operation::Product;
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

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Makes the product, wherever.
    pub fn gemm(&mut self, product: Product<'_, T>) {
        let (m, n, k) = (product.c.rows(), product.c.cols(), product.depth());
        if m == 0 || n == 0 {
            return;
        }
        let volume = m.saturating_mul(n).saturating_mul(k);
        if volume < LEAST_VOLUME {
            return self.cpu.gemm(product);
        }
        let saved = product.beta != T::ZERO;
        let engines = self.device.engines().max(1);
        let most = if saved {
            SAVED_BYTES / size_of::<T>() / engines
        } else {
            usize::MAX
        };
        let length = length((m, n), volume, engines, most);
        for group in pieces(product, length).chunks_mut(engines) {
            self.group(group, saved);
        }
    }

    /// Makes products that do not depend on each other.
    fn group(&mut self, parts: &mut [Product<'_, T>], saved: bool) {
        if self.outcome.failure.is_some() {
            for part in parts {
                self.cpu.gemm(part.reborrow());
            }
            return;
        }
        if !saved {
            let done = self.multiply(parts);
            for (part, done) in parts.iter_mut().zip(done) {
                if !self.noted(done) {
                    // C is not read.
                    self.cpu.gemm(part.reborrow());
                }
            }
            return;
        }
        let shapes: Vec<_> = parts
            .iter()
            .map(|part| (part.c.rows(), part.c.cols()))
            .collect();
        let elements: usize = shapes.iter().map(|(rows, cols)| rows * cols).sum();
        let Some(mut scratch) = self.pool.take(elements * size_of::<T>()) else {
            self.outcome.failed(Reason::Busy);
            // This time the CPU does it.
            return self.group(parts, saved);
        };
        let mut copies = scratch.matrices::<T>(&shapes);
        let saves = copies
            .iter_mut()
            .zip(&*parts)
            .map(|(copy, part)| Work::Copy {
                to: copy.reborrow(),
                from: part.c.as_view(),
            });
        let saves = self.device.run(saves.collect());
        if let Some(reason) = saves.into_iter().find_map(Result::err) {
            self.outcome.failed(reason);
            self.pool.give(scratch);
            // C is untouched, and this time the CPU makes it.
            return self.group(parts, saved);
        }
        let done = self.multiply(parts);
        for ((part, copy), done) in parts.iter_mut().zip(&copies).zip(done) {
            if !self.noted(done) {
                part.c.copy_from(copy.as_view());
                self.cpu.gemm(part.reborrow());
            }
        }
        self.pool.give(scratch);
    }

    fn multiply(&self, parts: &mut [Product<'_, T>]) -> Vec<Result<(), Reason>> {
        let work = parts.iter_mut().map(|part| Work::Product(part.reborrow()));
        self.device.run(work.collect())
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

/// Length of the pieces that C is cut into along its longer side for the engines, none of more than `most`
/// elements (but for a single row or column).
fn length((m, n): (usize, usize), volume: usize, engines: usize, most: usize) -> usize {
    let worth = (volume / PIECE_VOLUME).clamp(1, engines);
    let needed = m.saturating_mul(n).div_ceil(most);
    let count = needed.next_multiple_of(worth);
    let long = m.max(n);
    let bound = (most / m.min(n)).max(1);
    long.div_ceil(count).next_multiple_of(ALIGN).min(bound)
}

/// Cuts a product along the longer side of C.
fn pieces<T: Real>(product: Product<'_, T>, length: usize) -> Vec<Product<'_, T>> {
    let (m, n) = (product.c.rows(), product.c.cols());
    let (mut pieces, mut rest) = (Vec::new(), product);
    for _ in 1..m.max(n).div_ceil(length) {
        let piece;
        (piece, rest) = if m > n {
            rest.split_rows(length)
        } else {
            rest.split_cols(length)
        };
        pieces.push(piece);
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operand;
    use crate::reference::{Bench, Fault, Shape};
    use crate::view::{View, ViewMut};

    /// Pieces cover C once and keep the bound.
    fn check(m: usize, n: usize, engines: usize, most: usize) -> usize {
        let mut c = vec![0.0; m * n];
        let (a, b) = (vec![1.0; m], vec![1.0; n]);
        let product = Product {
            alpha: 1.0,
            a: Operand::plain(View::of(&a, (m, 1), m)),
            b: Operand::plain(View::of(&b, (1, n), 1)),
            beta: 1.0,
            c: ViewMut::of(&mut c, (m, n), m),
        };
        let mut pieces = pieces(product, length((m, n), m * n * 512, engines, most));
        for piece in &mut pieces {
            piece.assert_fits();
            let (rows, cols) = (piece.c.rows(), piece.c.cols());
            assert!(rows * cols <= most.max(m.min(n)), "{rows}×{cols}");
            assert!(rows * cols > 0, "{rows}×{cols}");
            piece.c.fill(|_, _| 1.0);
        }
        let count = pieces.len();
        // They have no element in common, by their type.
        assert!(c.iter().all(|&element| element == 1.0));
        count
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

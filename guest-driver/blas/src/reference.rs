// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device and a CPU for tests, and operations on random matrices by the library, with that device, and by
//! definition.

mod cpu;
mod device;

use crate::cpu::{Blas, Cpu as _};
use crate::level3::Offload;
use crate::operation::{order, Call, Operand, Product, Side, Symm, Syrk, Trsm};
use crate::outcome::Outcome;
use crate::real::Real;
use crate::scratch::Pool;
use crate::view::{Stored, StoredMut, Triangle, View, ViewMut};

pub use device::{Fault, TestDevice};

/// Elements between the columns of the test's matrices, which nobody may touch.
const GAP: usize = 3;

/// A precision of the tests.
pub trait TestReal: Real + Into<f64> {
    fn from_f64(value: f64) -> Self;
    fn from_bits_of(bits: u64) -> Self;
    /// Largest error that is the arithmetic's own, for numbers of about 1.
    const TOLERANCE: f64;
}

impl TestReal for f32 {
    const TOLERANCE: f64 = 2e-3;
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn from_bits_of(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
}

impl TestReal for f64 {
    const TOLERANCE: f64 = 1e-9;
    fn from_f64(value: f64) -> Self {
        value
    }
    fn from_bits_of(bits: u64) -> Self {
        f64::from_bits(bits)
    }
}

/// Operations on random matrices, by the library and by definition.
pub struct Bench<T> {
    device: TestDevice,
    pool: Pool,
    outcome: Outcome,
    seed: u64,
    /// Old C is no number, and must not be read.
    pub poison_c: bool,
    cpu: Blas<T, i32>,
}

/// Sizes of a product.
#[derive(Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl<T: TestReal> Bench<T> {
    pub fn new(fault: Fault) -> Self {
        Self {
            device: TestDevice::new(fault),
            pool: Pool::new(),
            outcome: Outcome::default(),
            seed: 0x9e37_79b9_7f4a_7c15,
            poison_c: false,
            cpu: cpu::cpu(),
        }
    }

    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Commands that the device was given.
    pub fn commands(&self) -> usize {
        self.device.commands()
    }

    /// A number from -1 to 1 (xorshift64).
    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Elements of a matrix, columns `GAP` apart.
    fn elements(&mut self, (rows, cols): (usize, usize)) -> Vec<T> {
        let count = (rows + GAP) * cols;
        (0..count).map(|_| T::from_f64(self.random())).collect()
    }

    fn destination(&mut self, shape: (usize, usize)) -> Vec<T> {
        let mut elements = self.elements(shape);
        if self.poison_c {
            elements.fill(T::from_f64(f64::NAN));
        }
        elements
    }

    /// Makes a call with the device.
    fn offload(&mut self, call: Call<'_, T>) {
        let mut offload = Offload::new(&self.device, &self.cpu, &self.pool);
        offload.call(call);
        self.outcome = offload.outcome;
    }

    pub fn check_gemm(
        &mut self,
        shape: Shape,
        trans_a: bool,
        trans_b: bool,
        alpha: f32,
        beta: f32,
    ) {
        let Shape { m, n, k } = shape;
        let stored = |rows, cols, trans| if trans { (cols, rows) } else { (rows, cols) };
        let (a_shape, b_shape) = (stored(m, k, trans_a), stored(k, n, trans_b));
        let (a, b) = (self.elements(a_shape), self.elements(b_shape));
        let mut got = self.destination((m, n));
        let mut wanted = got.clone();
        let call = |c| {
            Call::Gemm(Product {
                alpha: T::from_f32(alpha),
                a: Operand {
                    stored: view(&a, a_shape),
                    trans: trans_a,
                },
                b: Operand {
                    stored: view(&b, b_shape),
                    trans: trans_b,
                },
                beta: T::from_f32(beta),
                c: view_mut(c, (m, n)),
            })
        };
        self.cpu.call(call(&mut wanted));
        self.offload(call(&mut got));
        assert_same(&got, &wanted);
    }

    pub fn check_syrk(
        &mut self,
        n: usize,
        k: usize,
        triangle: Triangle,
        trans: bool,
        alpha: f32,
        beta: f32,
    ) {
        let shape = if trans { (k, n) } else { (n, k) };
        let a = self.elements(shape);
        let mut got = self.destination((n, n));
        let mut wanted = got.clone();
        let call = |c| {
            Call::Syrk(Syrk {
                alpha: T::from_f32(alpha),
                a: Operand {
                    stored: view(&a, shape),
                    trans,
                },
                beta: T::from_f32(beta),
                c: StoredMut::of(view_mut(c, (n, n)), triangle),
            })
        };
        self.cpu.call(call(&mut wanted));
        self.offload(call(&mut got));
        assert_same(&got, &wanted);
    }

    pub fn check_symm(
        &mut self,
        shape: (usize, usize),
        side: Side,
        triangle: Triangle,
        alpha: f32,
        beta: f32,
    ) {
        let order = order(side, shape);
        let a = self.triangular(order, triangle, false);
        let b = self.elements(shape);
        let mut got = self.destination(shape);
        let mut wanted = got.clone();
        let call = |c| {
            Call::Symm(Symm {
                side,
                alpha: T::from_f32(alpha),
                a: Stored::of(view(&a, (order, order)), triangle),
                b: view(&b, shape),
                beta: T::from_f32(beta),
                c: view_mut(c, shape),
            })
        };
        self.cpu.call(call(&mut wanted));
        self.offload(call(&mut got));
        assert_same(&got, &wanted);
    }

    pub fn check_trsm(
        &mut self,
        shape: (usize, usize),
        side: Side,
        triangle: Triangle,
        trans: bool,
        unit: bool,
        alpha: f32,
    ) {
        let order = order(side, shape);
        let a = self.triangular(order, triangle, unit);
        let mut got = self.elements(shape);
        let mut wanted = got.clone();
        let call = |b| {
            Call::Trsm(Trsm {
                side,
                a: Stored::of(view(&a, (order, order)), triangle),
                trans,
                unit,
                alpha: T::from_f32(alpha),
                b: view_mut(b, shape),
            })
        };
        self.cpu.call(call(&mut wanted));
        self.offload(call(&mut got));
        assert_same(&got, &wanted);
    }

    /// A triangle with small elements beside a diagonal of about 2, so that systems are good-natured;
    /// what is not stored is no number.
    fn triangular(&mut self, order: usize, triangle: Triangle, unit: bool) -> Vec<T> {
        let mut elements = self.elements((order, order));
        for col in 0..order {
            for row in 0..order {
                let element = &mut elements[row + col * (order + GAP)];
                let value: f64 = (*element).into();
                let stored = match triangle {
                    Triangle::Lower => row >= col,
                    Triangle::Upper => row <= col,
                };
                *element = T::from_f64(match row == col {
                    true if unit => f64::NAN,
                    true => 2.0 + value / 2.0,
                    false if stored => value / order as f64,
                    false => f64::NAN,
                });
            }
        }
        elements
    }
}

/// Compares all elements, those between the columns included.
fn assert_same<T: TestReal>(got: &[T], wanted: &[T]) {
    for (index, (&got, &wanted)) in got.iter().zip(wanted).enumerate() {
        let (got, wanted): (f64, f64) = (got.into(), wanted.into());
        let close = (got - wanted).abs() <= T::TOLERANCE * wanted.abs().max(1.0);
        let same = got.to_bits() == wanted.to_bits();
        assert!(close || same, "element {index}: {got}, not {wanted}");
    }
}

fn view<T: Real>(elements: &[T], shape: (usize, usize)) -> View<'_, T> {
    View::of(elements, shape, shape.0 + GAP)
}

fn view_mut<T: Real>(elements: &mut [T], shape: (usize, usize)) -> ViewMut<'_, T> {
    ViewMut::of(elements, shape, shape.0 + GAP)
}

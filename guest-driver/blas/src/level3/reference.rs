// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device and a CPU for tests: the device's commands on the memory of the test, with failures where
//! they are wanted, and the operations as their definitions have them.
// UNSAFETY: both work on bare addresses, as the real ones do.
#![expect(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_char;

use coax::abi::wire::{self, GEMM_TRANS_A, GEMM_TRANS_B};
use coax::{Command, PageRange};

use crate::cpu::{Cpu, Int};
use crate::device::{Device, Found, Product};
use crate::level3::symm::Symm;
use crate::level3::syrk::Syrk;
use crate::level3::trsm::Trsm;
use crate::level3::{Offload, Side, Triangle};
use crate::matrix::{Matrix, Operand};
use crate::outcome::{Outcome, Reason};
use crate::real::Real;
use crate::scratch::Pool;

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

/// When the device fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never.
    Never,
    /// In the middle of the command with this number, and at all after it.
    HalfWay(usize),
}

struct TestDevice {
    fault: Fault,
    commands: Cell<usize>,
}

impl Device for TestDevice {
    fn engines(&self) -> usize {
        2
    }

    fn fetch(&self, _ranges: &[PageRange]) {}

    fn find(&self, _ranges: &[PageRange]) -> Found {
        Found::default()
    }

    unsafe fn run(&self, commands: &[Command]) -> Vec<Result<(), Reason>> {
        let one = |command: &Command| {
            let number = self.commands.replace(self.commands.get() + 1);
            let fails = matches!(self.fault, Fault::HalfWay(at) if number >= at);
            // SAFETY: As the caller promises.
            unsafe { execute(command, fails) };
            if fails {
                Err(Reason::Fault)
            } else {
                Ok(())
            }
        };
        commands.iter().map(one).collect()
    }
}

fn pointer<T>(address: u64) -> *mut T {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Does a command, or about half of it.
unsafe fn execute(command: &Command, half: bool) {
    let args = command.args.map(|arg| arg as usize);
    match command.opcode {
        wire::OP_COPY => {
            let bytes = if half { args[2] / 2 } else { args[2] };
            // SAFETY: As the caller promises.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    pointer::<u8>(command.args[1]),
                    pointer::<u8>(command.args[0]),
                    bytes,
                );
            }
        }
        wire::OP_COPY_ROWS => {
            let [dst, src, row, rows, to, from, ..] = args;
            let rows = if half { rows / 2 } else { rows };
            for n in 0..rows {
                // SAFETY: As the caller promises.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        pointer::<u8>((src + n * from) as u64),
                        pointer::<u8>((dst + n * to) as u64),
                        row,
                    );
                }
            }
        }
        // SAFETY: As the caller promises.
        wire::OP_SGEMM => unsafe { product::<f32>(command, half, matrixmultiply::sgemm) },
        // SAFETY: As the caller promises.
        wire::OP_DGEMM => unsafe { product::<f64>(command, half, matrixmultiply::dgemm) },
        opcode => panic!("opcode {opcode}"),
    }
}

type Multiply<T> = unsafe fn(
    usize,
    usize,
    usize,
    T,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    *mut T,
    isize,
    isize,
);

/// A matrix product, or that of the first half of the columns.
unsafe fn product<T: TestReal>(command: &Command, half: bool, multiply: Multiply<T>) {
    let [m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, flags] = command.args;
    let strides = |ld: u64, trans: bool| match (ld as isize, trans) {
        (ld, false) => (1, ld),
        (ld, true) => (ld, 1),
    };
    let a_strides = strides(lda, flags & GEMM_TRANS_A != 0);
    let b_strides = strides(ldb, flags & GEMM_TRANS_B != 0);
    let n = if half { n / 2 } else { n };
    // SAFETY: As the caller promises.
    unsafe {
        multiply(
            m as usize,
            k as usize,
            n as usize,
            T::from_bits_of(alpha),
            pointer(a),
            a_strides.0,
            a_strides.1,
            pointer(b),
            b_strides.0,
            b_strides.1,
            T::from_bits_of(beta),
            pointer(c),
            1,
            ldc as isize,
        );
    }
}

/// op(M) as a function of row and column.
unsafe fn reader<T: TestReal>(
    at: *const T,
    ld: *const Int,
    trans: bool,
) -> impl Fn(usize, usize) -> f64 {
    // SAFETY: As the caller promises.
    let ld = unsafe { *ld } as usize;
    move |row, col| {
        let (row, col) = if trans { (col, row) } else { (row, col) };
        // SAFETY: As the caller promises, of the elements that the operation reads.
        unsafe { (*at.add(row + col * ld)).into() }
    }
}

unsafe fn is(letter: *const c_char, other: u8) -> bool {
    // SAFETY: As the caller promises.
    unsafe { *letter as u8 == other }
}

unsafe fn size(number: *const Int) -> usize {
    // SAFETY: As the caller promises.
    unsafe { *number as usize }
}

/// Writes sum·alpha + beta·C to an element.
unsafe fn store<T: TestReal>(to: *mut T, sum: f64, alpha: *const T, beta: *const T) {
    // SAFETY: As the caller promises; C is not read if beta is 0.
    unsafe {
        let old = if *beta == T::ZERO {
            0.0
        } else {
            (*beta).into() * (*to).into()
        };
        *to = T::from_f64((*alpha).into() * sum + old);
    }
}

unsafe extern "C" fn gemm<T: TestReal>(
    ta: *const c_char,
    tb: *const c_char,
    m: *const Int,
    n: *const Int,
    k: *const Int,
    alpha: *const T,
    a: *const T,
    lda: *const Int,
    b: *const T,
    ldb: *const Int,
    beta: *const T,
    c: *mut T,
    ldc: *const Int,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let a = reader(a, lda, is(ta, b'T'));
        let b = reader(b, ldb, is(tb, b'T'));
        for j in 0..size(n) {
            for i in 0..size(m) {
                let sum = (0..size(k)).map(|p| a(i, p) * b(p, j)).sum();
                store(c.add(i + j * size(ldc)), sum, alpha, beta);
            }
        }
    }
}

unsafe extern "C" fn syrk<T: TestReal>(
    uplo: *const c_char,
    trans: *const c_char,
    n: *const Int,
    k: *const Int,
    alpha: *const T,
    a: *const T,
    lda: *const Int,
    beta: *const T,
    c: *mut T,
    ldc: *const Int,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let a = reader(a, lda, is(trans, b'T'));
        for j in 0..size(n) {
            for i in 0..size(n) {
                if (i >= j && is(uplo, b'L')) || (i <= j && is(uplo, b'U')) {
                    let sum = (0..size(k)).map(|p| a(i, p) * a(j, p)).sum();
                    store(c.add(i + j * size(ldc)), sum, alpha, beta);
                }
            }
        }
    }
}

unsafe extern "C" fn symm<T: TestReal>(
    side: *const c_char,
    uplo: *const c_char,
    m: *const Int,
    n: *const Int,
    alpha: *const T,
    a: *const T,
    lda: *const Int,
    b: *const T,
    ldb: *const Int,
    beta: *const T,
    c: *mut T,
    ldc: *const Int,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let (stored, b) = (reader(a, lda, false), reader(b, ldb, false));
        let lower = is(uplo, b'L');
        let a = |i: usize, j: usize| {
            if (i >= j) == lower {
                stored(i, j)
            } else {
                stored(j, i)
            }
        };
        for j in 0..size(n) {
            for i in 0..size(m) {
                let sum = if is(side, b'L') {
                    (0..size(m)).map(|p| a(i, p) * b(p, j)).sum()
                } else {
                    (0..size(n)).map(|p| b(i, p) * a(p, j)).sum()
                };
                store(c.add(i + j * size(ldc)), sum, alpha, beta);
            }
        }
    }
}

unsafe extern "C" fn trsm<T: TestReal>(
    side: *const c_char,
    uplo: *const c_char,
    trans: *const c_char,
    diag: *const c_char,
    m: *const Int,
    n: *const Int,
    alpha: *const T,
    a: *const T,
    lda: *const Int,
    b: *mut T,
    ldb: *const Int,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let a = reader(a, lda, is(trans, b'T'));
        let (left, unit) = (is(side, b'L'), is(diag, b'U'));
        let lower = is(uplo, b'L') != is(trans, b'T');
        let (order, others) = if left {
            (size(m), size(n))
        } else {
            (size(n), size(m))
        };
        let ldb = size(ldb);
        let at = |unknown: usize, other: usize| {
            if left {
                b.add(unknown + other * ldb)
            } else {
                b.add(other + unknown * ldb)
            }
        };
        let forward = lower == left;
        for other in 0..others {
            for step in 0..order {
                let i = if forward { step } else { order - 1 - step };
                let known = if forward { 0..i } else { i + 1..order };
                let mut value: f64 = (*alpha).into() * (*at(i, other)).into();
                for p in known {
                    let factor = if left { a(i, p) } else { a(p, i) };
                    value -= factor * (*at(p, other)).into();
                }
                *at(i, other) = T::from_f64(if unit { value } else { value / a(i, i) });
            }
        }
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
    cpu: Cpu<T>,
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
            device: TestDevice {
                fault,
                commands: Cell::new(0),
            },
            pool: Pool::new(),
            outcome: Outcome::default(),
            seed: 0x9e37_79b9_7f4a_7c15,
            poison_c: false,
            cpu: Cpu {
                gemm: gemm::<T>,
                syrk: syrk::<T>,
                symm: symm::<T>,
                trsm: trsm::<T>,
            },
        }
    }

    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Commands that the device was given.
    pub fn commands(&self) -> usize {
        self.device.commands.get()
    }

    /// A number from -1 to 1 (xorshift64).
    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Elements of a matrix, columns `GAP` apart.
    fn elements(&mut self, rows: usize, cols: usize) -> Vec<T> {
        let count = (rows + GAP) * cols;
        (0..count).map(|_| T::from_f64(self.random())).collect()
    }

    fn destination(&mut self, rows: usize, cols: usize) -> Vec<T> {
        let mut elements = self.elements(rows, cols);
        if self.poison_c {
            elements.fill(T::from_f64(f64::NAN));
        }
        elements
    }

    /// Runs both, on copies of C, and compares all elements, those between the columns included.
    fn compare(
        &mut self,
        c: &mut [T],
        library: impl FnOnce(&mut Offload<'_, T, TestDevice>, *mut T),
        definition: impl FnOnce(&Cpu<T>, *mut T),
    ) {
        let mut expected = c.to_vec();
        definition(&self.cpu, expected.as_mut_ptr());
        let mut offload = Offload::new(&self.device, &self.cpu, &self.pool);
        library(&mut offload, c.as_mut_ptr());
        self.outcome = offload.outcome;
        for (index, (&got, &wanted)) in c.iter().zip(&expected).enumerate() {
            let (got, wanted): (f64, f64) = (got.into(), wanted.into());
            let close = (got - wanted).abs() <= T::TOLERANCE * wanted.abs().max(1.0);
            let same = got.to_bits() == wanted.to_bits();
            assert!(close || same, "element {index}: {got}, not {wanted}");
        }
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
        let (a, b) = (stored(m, k, trans_a), stored(k, n, trans_b));
        let mut a_elements = self.elements(a.0, a.1);
        let mut b_elements = self.elements(b.0, b.1);
        let mut c = self.destination(m, n);
        let product = Product {
            alpha: T::from_f32(alpha),
            a: Operand {
                stored: matrix(&mut a_elements, a),
                trans: trans_a,
            },
            b: Operand {
                stored: matrix(&mut b_elements, b),
                trans: trans_b,
            },
            beta: T::from_f32(beta),
            c: matrix(&mut c, (m, n)),
        };
        let with = |at| Product {
            c: Matrix { at, ..product.c },
            ..product
        };
        self.compare(
            &mut c,
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |offload, at| unsafe { offload.gemm(&with(at)) },
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |cpu, at| unsafe { with(at).on_cpu(cpu) },
        );
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
        let mut a = self.elements(shape.0, shape.1);
        let mut c = self.destination(n, n);
        let syrk = Syrk {
            triangle,
            alpha: T::from_f32(alpha),
            a: Operand {
                stored: matrix(&mut a, shape),
                trans,
            },
            beta: T::from_f32(beta),
            c: matrix(&mut c, (n, n)),
        };
        let with = |at| Syrk {
            c: Matrix { at, ..syrk.c },
            ..syrk
        };
        self.compare(
            &mut c,
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |offload, at| unsafe { offload.syrk(&with(at)) },
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |cpu, at| unsafe { with(at).on_cpu(cpu) },
        );
    }

    pub fn check_symm(
        &mut self,
        (m, n): (usize, usize),
        side: Side,
        triangle: Triangle,
        alpha: f32,
        beta: f32,
    ) {
        let order = if side == Side::Left { m } else { n };
        let mut a = self.triangular(order, triangle, false);
        let mut b = self.elements(m, n);
        let mut c = self.destination(m, n);
        let symm = Symm {
            side,
            triangle,
            alpha: T::from_f32(alpha),
            a: matrix(&mut a, (order, order)),
            b: matrix(&mut b, (m, n)),
            beta: T::from_f32(beta),
            c: matrix(&mut c, (m, n)),
        };
        let with = |at| Symm {
            c: Matrix { at, ..symm.c },
            ..symm
        };
        self.compare(
            &mut c,
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |offload, at| unsafe { offload.symm(&with(at)) },
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |cpu, at| unsafe { with(at).on_cpu(cpu) },
        );
    }

    pub fn check_trsm(
        &mut self,
        (m, n): (usize, usize),
        side: Side,
        triangle: Triangle,
        trans: bool,
        unit: bool,
        alpha: f32,
    ) {
        let order = if side == Side::Left { m } else { n };
        let mut a = self.triangular(order, triangle, unit);
        let mut b = self.elements(m, n);
        let trsm = Trsm {
            side,
            triangle,
            a: Operand {
                stored: matrix(&mut a, (order, order)),
                trans,
            },
            unit,
            alpha: T::from_f32(alpha),
            b: matrix(&mut b, (m, n)),
        };
        let with = |at| Trsm {
            b: Matrix { at, ..trsm.b },
            ..trsm
        };
        self.compare(
            &mut b,
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |offload, at| unsafe { offload.trsm(&with(at)) },
            // SAFETY: The matrices are the vectors above; `at` is the last, or a copy as long.
            |cpu, at| unsafe { with(at).on_cpu(cpu) },
        );
    }

    /// A triangle with small elements beside a diagonal of about 2, so that systems are good-natured;
    /// what is not stored is no number.
    fn triangular(&mut self, order: usize, triangle: Triangle, unit: bool) -> Vec<T> {
        let mut elements = self.elements(order, order);
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

fn matrix<T>(elements: &mut [T], (rows, cols): (usize, usize)) -> Matrix<T> {
    Matrix {
        at: elements.as_mut_ptr(),
        rows,
        cols,
        ld: rows + GAP,
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Matrix multiplication against the plain triple loop.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::front_end::{linear, Guest, PAGES, VA};

/// Places of the matrices, at odd distances so that elements cross page borders.
const A: u64 = 0x3;
const B: u64 = 0x80_0005;
const C: u64 = 0x100_0007;

/// Shape and place of a product; leading dimensions are as small as they may be, plus `gap`.
#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    flags: u64,
    gap: usize,
    alpha: f64,
    beta: f64,
}

impl Case {
    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Leading dimension of a matrix that is stored with these rows and columns.
    fn ld(&self, rows: usize, cols: usize) -> usize {
        let least = if self.has(GEMM_ROW_MAJOR) { cols } else { rows };
        least.max(1) + self.gap
    }

    fn lda(&self) -> usize {
        let (rows, cols) = swapped(self.m, self.k, self.has(GEMM_TRANS_A));
        self.ld(rows, cols)
    }

    fn ldb(&self) -> usize {
        let (rows, cols) = swapped(self.k, self.n, self.has(GEMM_TRANS_B));
        self.ld(rows, cols)
    }

    fn ldc(&self) -> usize {
        self.ld(self.m, self.n)
    }

    /// Place of an element of op(X) in its matrix.
    fn at(&self, row: usize, col: usize, ld: usize, trans: bool) -> usize {
        let (row, col) = swapped(row, col, trans);
        let (row, col) = swapped(row, col, self.has(GEMM_ROW_MAJOR));
        col * ld + row
    }

    fn args(&self, alpha: u64, beta: u64) -> Vec<u64> {
        let dims = [self.m, self.n, self.k].map(|n| n as u64);
        let (lda, ldb, ldc) = (self.lda() as u64, self.ldb() as u64, self.ldc() as u64);
        let places = [VA + A, lda, VA + B, ldb, VA + C, ldc];
        [&dims[..], &places, &[alpha, beta, self.flags]].concat()
    }

    fn expected(&self, a: &[f64], b: &[f64], c: &[f64]) -> Vec<f64> {
        let mut result = c.to_vec();
        for i in 0..self.m {
            for j in 0..self.n {
                let sum: f64 = (0..self.k)
                    .map(|p| {
                        a[self.at(i, p, self.lda(), self.has(GEMM_TRANS_A))]
                            * b[self.at(p, j, self.ldb(), self.has(GEMM_TRANS_B))]
                    })
                    .sum();
                let place = self.at(i, j, self.ldc(), false);
                result[place] = self.alpha * sum;
                if self.beta != 0.0 {
                    result[place] += self.beta * c[place];
                }
            }
        }
        result
    }
}

fn swapped<T>(a: T, b: T, swap: bool) -> (T, T) {
    if swap {
        (b, a)
    } else {
        (a, b)
    }
}

/// Small integers, so that every sum is exact in both precisions.
fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) % 9) as f64 - 4.0
        })
        .collect()
}

/// Elements that a matrix of such a leading dimension takes at most.
fn storage(case: &Case, ld: usize) -> usize {
    ld * case.m.max(case.n).max(case.k).max(1)
}

fn run_f64(guest: &mut Guest, case: &Case) -> (CommandReply, Vec<f64>, Vec<f64>) {
    let a = numbers(storage(case, case.lda()), 1);
    let b = numbers(storage(case, case.ldb()), 2);
    let c = numbers(storage(case, case.ldc()), 3);
    let bytes = |values: &[f64]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    guest.write(PAGES + A, &bytes(&a));
    guest.write(PAGES + B, &bytes(&b));
    guest.write(PAGES + C, &bytes(&c));
    let args = case.args(case.alpha.to_bits(), case.beta.to_bits());
    let reply = guest.run(0, OP_DGEMM, &args, &linear);
    let result = guest
        .read(PAGES + C, c.len() * 8)
        .chunks(8)
        .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    (reply, result, case.expected(&a, &b, &c))
}

fn run_f32(guest: &mut Guest, case: &Case) -> (CommandReply, Vec<f64>, Vec<f64>) {
    let a = numbers(storage(case, case.lda()), 1);
    let b = numbers(storage(case, case.ldb()), 2);
    let c = numbers(storage(case, case.ldc()), 3);
    let bytes = |values: &[f64]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|&value| (value as f32).to_le_bytes())
            .collect()
    };
    guest.write(PAGES + A, &bytes(&a));
    guest.write(PAGES + B, &bytes(&b));
    guest.write(PAGES + C, &bytes(&c));
    let number = |value: f64| u64::from((value as f32).to_bits());
    let args = case.args(number(case.alpha), number(case.beta));
    let reply = guest.run(0, OP_SGEMM, &args, &linear);
    let result = guest
        .read(PAGES + C, c.len() * 4)
        .chunks(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()).into())
        .collect();
    (reply, result, case.expected(&a, &b, &c))
}

#[test]
fn every_layout_gives_the_product() {
    covers!("coax.dev.55");
    let mut guest = Guest::new();
    guest.open(0);
    for flags in 0..8 {
        // Sizes below, at and beyond those of tiles; two scales that are exact.
        for (m, n, k, gap) in [
            (1, 1, 1, 0),
            (5, 7, 3, 2),
            (36, 33, 130, 0),
            (35, 386, 65, 5),
        ] {
            let case = Case {
                m,
                n,
                k,
                flags,
                gap,
                alpha: 2.0,
                beta: -1.0,
            };
            let (reply, result, expected) = run_f64(&mut guest, &case);
            assert_eq!(reply.status, STATUS_OK, "{case:?}");
            assert_eq!(reply.bytes_done, (m * n * 8) as u64);
            assert!(result == expected, "f64 {case:?}");
            let (reply, result, expected) = run_f32(&mut guest, &case);
            assert_eq!(reply.status, STATUS_OK, "{case:?}");
            assert!(result == expected, "f32 {case:?}");
        }
    }
}

#[test]
fn several_tiles_in_every_direction_give_the_product() {
    let mut guest = Guest::new();
    guest.open(0);
    let case = Case {
        m: 385,
        n: 386,
        k: 257,
        flags: GEMM_TRANS_B,
        gap: 1,
        alpha: 1.0,
        beta: 1.0,
    };
    let (reply, result, expected) = run_f64(&mut guest, &case);
    assert_eq!(reply.status, STATUS_OK);
    assert!(result == expected);
}

#[test]
fn products_at_the_same_time_are_right_with_small_tiles_too() {
    let mut guest = Guest::new();
    guest.open(0);
    let size = 100u64;
    let ones: Vec<u8> = (0..size * size).flat_map(|_| 1f64.to_le_bytes()).collect();
    guest.write(PAGES + A, &ones);
    guest.write(PAGES + B, &ones);
    // More than have large tiles, all parked before the first answer.
    let count = 12;
    for n in 0..count {
        let c = VA + C + n * size * size * 8;
        let args = [
            size,
            size,
            size,
            VA + A,
            size,
            VA + B,
            size,
            c,
            size,
            ((n + 1) as f64).to_bits(),
            0,
            0,
        ];
        guest.submit(0, 0, OP_DGEMM, &args);
    }
    for _ in 0..count {
        assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
    }
    for n in 0..count {
        let bytes = guest.read(PAGES + C + n * size * size * 8, (size * size * 8) as usize);
        let value = ((n + 1) * size) as f64;
        assert!(bytes.chunks(8).all(|bytes| bytes == value.to_le_bytes()));
    }
}

#[test]
fn beta_0_overwrites_what_is_no_number() {
    covers!("coax.dev.63");
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES + A, &2f64.to_le_bytes());
    guest.write(PAGES + B, &3f64.to_le_bytes());
    for (alpha, k, expected) in [(1.0, 1, 6.0), (0.0, 1, 0.0), (1.0, 0, 0.0)] {
        guest.write(PAGES + C, &f64::NAN.to_le_bytes());
        let args = [
            1,
            1,
            k,
            VA + A,
            1,
            VA + B,
            1,
            VA + C,
            1,
            f64::to_bits(alpha),
            0f64.to_bits(),
            0,
        ];
        let reply = guest.run(0, OP_DGEMM, &args, &linear);
        assert_eq!(reply.status, STATUS_OK);
        assert_eq!(guest.read(PAGES + C, 8), f64::to_le_bytes(expected));
    }
}

#[test]
fn operands_are_not_touched_when_alpha_or_a_size_is_0() {
    covers!("coax.dev.63");
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES + C, &3f64.to_le_bytes());
    let one = 1f64.to_bits();
    let only_c = |va| linear(va).filter(|_| va >= VA + (C & !0xfff));
    for (m, n, k, alpha, beta, expected) in [
        (1, 1, 1, 0, 2f64.to_bits(), 6.0),
        (1, 1, 0, one, one, 6.0),
        (0, 1, 1, one, 0, 6.0),
        (1, 0, 1, one, 0, 6.0),
    ] {
        let args = [m, n, k, VA + A, 1, VA + B, 1, VA + C, 1, alpha, beta, 0];
        let reply = guest.run(0, OP_DGEMM, &args, &only_c);
        assert_eq!(reply.status, STATUS_OK);
        assert_eq!(guest.read(PAGES + C, 8), f64::to_le_bytes(expected));
    }
}

#[test]
fn leading_dimensions_and_overlaps_are_checked() {
    covers!("coax.dev.57");
    let mut guest = Guest::new();
    guest.open(0);
    let one = 1f64.to_bits();
    let good = [4, 5, 6, VA + A, 4, VA + B, 6, VA + C, 4, one, 0, 0];
    for (at, value) in [
        (4, 3),
        (6, 5),
        (8, 3),
        (7, VA + A + 4 * 6 * 8 - 1),
        (7, VA + B - 4 * 5 * 8 + 1),
        (3, u64::MAX - 100),
        (0, u64::MAX),
        (4, u64::MAX),
    ] {
        let mut bad = good;
        bad[at] = value;
        let reply = guest.run(0, OP_DGEMM, &bad, &linear);
        assert_eq!(reply.status, STATUS_BAD_ARGUMENT, "{at} {value:#x}");
    }
    // Row-major, the leading dimension holds a row: 6, 5 and 5 elements.
    let rows = [
        4,
        5,
        6,
        VA + A,
        6,
        VA + B,
        5,
        VA + C,
        5,
        one,
        0,
        GEMM_ROW_MAJOR,
    ];
    assert_eq!(guest.run(0, OP_DGEMM, &rows, &linear).status, STATUS_OK);
    for at in [4, 6, 8] {
        let mut bad = rows;
        bad[at] -= 1;
        let reply = guest.run(0, OP_DGEMM, &bad, &linear);
        assert_eq!(reply.status, STATUS_BAD_ARGUMENT);
    }
}

#[test]
fn beta_is_applied_once_when_pages_of_c_go_away_again_and_again() {
    covers!("coax.dev.63");
    let mut guest = Guest::new();
    guest.open(0);
    // C = 1·1 + 2·C, in one column of several pages.
    let rows = 2048u64;
    guest.write(PAGES + A, &1f64.to_le_bytes().repeat(rows as usize));
    guest.write(PAGES + B, &1f64.to_le_bytes());
    guest.write(PAGES + C, &5f64.to_le_bytes().repeat(rows as usize));
    let args = [
        rows,
        1,
        1,
        VA + A,
        rows,
        VA + B,
        1,
        VA + C,
        rows,
        1f64.to_bits(),
        2f64.to_bits(),
        0,
    ];
    guest.submit(0, 0, OP_DGEMM, &args);
    let reply = loop {
        if let Some(reply) = guest.poll_reply() {
            break reply;
        }
        if let Some(request) = guest.poll_request() {
            // One page at a time, and the one before is taken away.
            let va = request.va.get();
            let gpa = linear(va).unwrap().0;
            guest.invalidate(0, va.saturating_sub(PAGE_SIZE), 1);
            guest.complete(&request, &[(va, gpa, 1, ACCESS_READ | ACCESS_WRITE)]);
        }
    };
    assert_eq!(reply.status, STATUS_OK);
    let bytes = guest.read(PAGES + C, rows as usize * 8);
    assert!(bytes.chunks(8).all(|bytes| bytes == 11f64.to_le_bytes()));
}

#[test]
fn fault_in_c_reports_how_much_was_written() {
    covers!("coax.dev.59");
    let mut guest = Guest::new();
    guest.open(0);
    let one = 1f64.to_bits();
    guest.write(PAGES + A, &1f64.to_le_bytes().repeat(512));
    guest.write(PAGES + B, &1f64.to_le_bytes().repeat(4));
    // C is page-aligned with one column a page; the third page is refused.
    let c = VA + 0x100_0000;
    let args = [512, 4, 1, VA + A, 512, VA + B, 1, c, 512, one, 0, 0];
    let reply = guest.run(0, OP_DGEMM, &args, &|va| {
        linear(va).filter(|_| va < c + 2 * PAGE_SIZE)
    });
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, c + 2 * PAGE_SIZE);
    assert_eq!(reply.fault_access, ACCESS_WRITE);
    // Tiles are written one after the other: the count says how much, not up to where.
    let written = guest.read(PAGES + 0x100_0000, 4 * 4096);
    let done = written
        .chunks(8)
        .filter(|bytes| *bytes == 1f64.to_le_bytes());
    assert_eq!(reply.bytes_done, done.count() as u64 * 8);
    assert!(written[2 * 4096..].iter().all(|&byte| byte == 0));
}

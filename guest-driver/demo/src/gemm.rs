// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scenario `gemm`: the device multiplies matrices in malloc'ed memory, in both precisions.
#![forbid(unsafe_code)]

use anyhow::Result;
use coax::{Context, Gemm, PageRange};

use crate::freivalds::{check, random_matrix, Element, VECTORS};
use crate::rng::Rng;
use crate::scenario::{device_pages, evict, judge, most, touch, DevicePages, Findings, Progress};

/// Any number does; this one makes runs repeatable.
const SEED: u64 = 0xc0a2;

/// Three square matrices.
struct Product<T> {
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
}

impl<T: Element> Product<T> {
    /// Random factors, and a result that no product can be.
    fn new(n: usize, nothing: T, rng: &mut Rng) -> Self {
        Self {
            a: random_matrix(n, rng),
            b: random_matrix(n, rng),
            c: vec![nothing; n * n],
        }
    }

    fn ranges(&self) -> [PageRange; 3] {
        [&self.a, &self.b, &self.c].map(|matrix| PageRange::of(matrix))
    }

    fn touch(&self) {
        for matrix in [&self.a, &self.b, &self.c] {
            touch(matrix);
        }
    }

    /// What Freivalds' check says, in words.
    fn verdict(&self, n: usize, rng: &mut Rng) -> String {
        match check([&self.a, &self.b, &self.c], n, rng) {
            Ok(()) => right(),
            Err(wrong) => wrong,
        }
    }
}

/// What a right product is called.
fn right() -> String {
    format!("C·x = A·(B·x) for {VECTORS} random vectors")
}

/// Runs it.
pub fn run(context: &Context, progress: &mut Progress, n: usize) -> Result<Findings> {
    let mut rng = Rng::new(SEED);
    let mut double = Product::new(n, f64::NAN, &mut rng);
    let mut single = Product::new(n, f32::NAN, &mut rng);
    let ranges: Vec<PageRange> = double.ranges().into_iter().chain(single.ranges()).collect();

    progress.done("random matrices made");
    let before = device_pages(context, &ranges)?;
    context.dgemm(&Gemm::product(n, n, n), &double.a, &double.b, &mut double.c)?;
    progress.done("device multiplied in f64");
    context.sgemm(&Gemm::product(n, n, n), &single.a, &single.b, &mut single.c)?;
    progress.done("device multiplied in f32");
    let after = device_pages(context, &ranges)?;
    let actual = format!(
        "f64: {}; f32: {}",
        double.verdict(n, &mut rng),
        single.verdict(n, &mut rng)
    );
    progress.done("products checked");
    double.touch();
    single.touch();
    let after_cpu = device_pages(context, &ranges)?;
    evict(context, &ranges)?;
    progress.done("pages read by the CPU and evicted");
    let after_evict = device_pages(context, &ranges)?;

    let pages = ranges.iter().map(PageRange::pages).sum();
    let device_pages = DevicePages {
        before,
        after,
        after_cpu,
        after_evict,
    };
    Ok(Findings {
        pages,
        device_pages,
        expected: format!("f64: {}; f32: {}", right(), right()),
        actual,
        complaints: judge(&context.info()?, most(pages), device_pages),
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands over memory that is on the device already.
#![forbid(unsafe_code)]

use std::time::Instant;

use anyhow::{ensure, Context as _, Result};
use coax::{Context, Gemm, PageRange};
use serde_json::{json, Value};

use super::array_list::ArrayList;
use super::samples::Samples;
use crate::freivalds::{check, random_matrix, Element};
use crate::output::Output;
use crate::rng::Rng;

/// Any number does; this one makes runs repeatable.
const SEED: u64 = 0xc0a3;
/// Times that each command runs.
const ROUNDS: usize = 5;
/// Nodes of the list, one to a cache line: 32 MiB, beyond the caches of the host.
const LIST_NODES: usize = 1 << 19;
/// Bytes hashed.
const HASH_BYTES: usize = 64 << 20;
/// Rows and columns of the matrices.
const GEMM_SIZES: [usize; 2] = [1024, 2048];

/// Measures list walk, hash and matrix products.
pub fn run(context: &Context, output: &mut Output) -> Result<()> {
    let mut rng = Rng::new(SEED);
    output.line(&list(context, &mut rng)?)?;
    output.line(&hash(context)?)?;
    for n in GEMM_SIZES {
        output.line(&gemm::<f32>(context, n, &mut rng)?)?;
        output.line(&gemm::<f64>(context, n, &mut rng)?)?;
    }
    Ok(())
}

/// Moves the pages of a range to the device; the share that is there then is part of the line.
fn prefetch(context: &Context, range: PageRange) -> Result<f64> {
    context
        .prefetch(range)
        .with_context(|| format!("Cannot prefetch {range}"))?;
    Ok(context.residency(range)?.device as f64 / range.pages() as f64)
}

/// Runs a command a few times and reports `amount` per second.
fn repeat(
    name: &str,
    unit: &str,
    amount: f64,
    resident: f64,
    mut command: impl FnMut() -> Result<()>,
) -> Result<Value> {
    // The first run fills the device's translation cache.
    command()?;
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        command()?;
        samples.add(amount / started.elapsed().as_secs_f64());
    }
    let mut line = samples.summary(name, unit);
    line["resident_share"] = json!(resident);
    Ok(line)
}

fn list(context: &Context, rng: &mut Rng) -> Result<Value> {
    let list = ArrayList::new(LIST_NODES, rng);
    let expected = list.expected();
    let resident = prefetch(context, list.range())?;
    let mut line = repeat("list_walk", "nodes/s", LIST_NODES as f64, resident, || {
        ensure!(
            list.sum_on_device(context)? == expected,
            "the device summed wrongly"
        );
        Ok(())
    })?;
    line["nodes"] = json!(LIST_NODES);
    line["node_bytes"] = json!(ArrayList::NODE_BYTES);
    Ok(line)
}

fn hash(context: &Context) -> Result<Value> {
    let memory = vec![0x5au8; HASH_BYTES];
    let resident = prefetch(context, PageRange::of(&memory))?;
    repeat("sha256", "B/s", HASH_BYTES as f64, resident, || {
        context.sha256(&memory)?;
        Ok(())
    })
}

/// A precision that the device multiplies in.
trait Precision: Element {
    const NAME: &'static str;
    const NOTHING: Self;
    fn multiply(context: &Context, n: usize, a: &[Self], b: &[Self], c: &mut [Self]) -> Result<()>;
}

impl Precision for f32 {
    const NAME: &'static str = "sgemm";
    const NOTHING: Self = f32::NAN;

    fn multiply(context: &Context, n: usize, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<()> {
        context.sgemm(&Gemm::product(n, n, n), a, b, c)?;
        Ok(())
    }
}

impl Precision for f64 {
    const NAME: &'static str = "dgemm";
    const NOTHING: Self = f64::NAN;

    fn multiply(context: &Context, n: usize, a: &[f64], b: &[f64], c: &mut [f64]) -> Result<()> {
        context.dgemm(&Gemm::product(n, n, n), a, b, c)?;
        Ok(())
    }
}

fn gemm<T: Precision>(context: &Context, n: usize, rng: &mut Rng) -> Result<Value> {
    let a: Vec<T> = random_matrix(n, rng);
    let b: Vec<T> = random_matrix(n, rng);
    let mut c = vec![T::NOTHING; n * n];
    let mut resident = 0.0;
    for matrix in [&a, &b, &c] {
        resident += prefetch(context, PageRange::of(matrix))? / 3.0;
    }
    let flops = 2.0 * (n as f64).powi(3);
    let name = format!("{}_{n}", T::NAME);
    let line = repeat(&name, "flop/s", flops, resident, || {
        T::multiply(context, n, &a, &b, &mut c)
    })?;
    // A fast wrong product is worth nothing.
    if let Err(wrong) = check([&a, &b, &c], n, rng) {
        anyhow::bail!("{name}: {wrong}");
    }
    Ok(line)
}

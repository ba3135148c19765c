// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sequences of events, chosen by a seed; `tests/fuzz` has a fuzzer choose them. More of them:
//!
//! ```text
//! SEQUENCES=10000000 cargo test --release -p vhost-device-coax --test sequences -- --ignored
//! ```

mod driver;

/// Sequences tried.
const SEQUENCES: u64 = 1000;
/// Sequences of the long run, if not told otherwise.
const MANY: u64 = 1_000_000;
/// Bytes of the longest one, three for each event.
const LONGEST: u64 = 900;

fn play(sequences: u64, seed: u64) {
    let mut random = seed;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    for _ in 0..sequences {
        let length = next() % LONGEST;
        let bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        driver::play(&bytes);
    }
}

#[test]
fn sequences_of_events_keep_the_books() {
    play(SEQUENCES, 1);
}

#[test]
#[ignore = "takes as long as one likes"]
fn many_sequences_of_events_keep_the_books() {
    let sequences = std::env::var("SEQUENCES");
    let sequences = sequences.map_or(MANY, |count| count.parse().unwrap_or(MANY));
    play(sequences, 2);
}

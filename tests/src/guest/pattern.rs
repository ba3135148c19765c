// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Data whose every byte is known, and what the device should compute from it.

use anyhow::{ensure, Result};
use sha2::{Digest, Sha256};

/// Bytes that look random and depend on the seed alone (a splitmix64 sequence).
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend((word ^ (word >> 31)).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The digest that the device should find.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Demands equal bytes; names the first that differs rather than printing all.
pub fn same(what: &str, got: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(
        got.len() == expected.len(),
        "{what}: {} bytes, not {}",
        got.len(),
        expected.len()
    );
    let differs = got
        .iter()
        .zip(expected)
        .position(|(got, expected)| got != expected);
    if let Some(at) = differs {
        let count = got
            .iter()
            .zip(expected)
            .filter(|(got, expected)| got != expected)
            .count();
        anyhow::bail!(
            "{what}: byte {at:#x} is {:#04x}, expected {:#04x}; {count} of {} bytes differ",
            got[at],
            expected[at],
            got.len(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_give_different_bytes_and_the_same_seed_the_same() {
        assert_eq!(bytes(1, 100), bytes(1, 100));
        assert_ne!(bytes(1, 100), bytes(2, 100));
        assert_eq!(bytes(1, 13).len(), 13);
    }

    #[test]
    fn the_first_difference_is_named() {
        let error = same("page", b"abcd", b"abxd")
            .expect_err("they differ")
            .to_string();
        assert_eq!(
            error,
            "page: byte 0x2 is 0x63, expected 0x78; 1 of 4 bytes differ"
        );
    }
}

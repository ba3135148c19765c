// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a parked command asks for: the window of each miss, and windows ahead of it.
//!
//! A command that is certain to need many windows is parked once for all of them and not once
//! for each. Only the window of the miss itself is decisive: the command cannot go on without
//! it. What is refused ahead ends nothing, since the command finds the address when it gets
//! there.
#![forbid(unsafe_code)]

use coax_abi::wire::PAGE_SIZE;

use crate::atc::LEAF_PAGES;
use crate::engine::Miss;

/// Aligned 2 MiB windows that are asked for at a miss, that of the miss included: 32 MiB. The
/// two misses of a copy take a quarter of the requests.
pub const AHEAD_WINDOWS: u64 = 16;

/// Bytes of a window: one request cannot reach beyond its end.
const WINDOW_BYTES: u64 = LEAF_PAGES * PAGE_SIZE;

/// One request of a parked command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// What is missing from its first byte on.
    pub miss: Miss,
    /// It lies in a window ahead.
    pub ahead: bool,
}

/// The requests for the misses of a step: those of the misses first, then those ahead, nearest
/// first. Windows of which `known` tells that they do not miss are left out, and those beyond
/// the first `room`.
pub fn wants(misses: &[Miss], room: usize, known: impl Fn(&Miss) -> bool) -> Vec<Want> {
    let decisive = misses.iter().map(|&miss| Want { miss, ahead: false });
    let ahead = (1..AHEAD_WINDOWS).flat_map(|n| {
        misses.iter().filter_map(move |miss| {
            Some(Want {
                miss: window_ahead(miss, n)?,
                ahead: true,
            })
        })
    });
    decisive
        .chain(ahead.filter(|want| !known(&want.miss)).take(room))
        .collect()
}

/// What a miss is certain to need of the `n`-th window behind its own.
fn window_ahead(miss: &Miss, n: u64) -> Option<Miss> {
    let va = (miss.va / WINDOW_BYTES)
        .checked_add(n)?
        .checked_mul(WINDOW_BYTES)?;
    let bytes = miss.va.saturating_add(miss.bytes).checked_sub(va)?;
    (bytes > 0).then_some(Miss {
        va,
        bytes,
        around: false,
        ..*miss
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn miss(va: u64, bytes: u64) -> Miss {
        Miss {
            va,
            bytes,
            access: Access::READ,
            around: false,
        }
    }

    fn places(wants: &[Want]) -> Vec<(u64, u64, bool)> {
        wants
            .iter()
            .map(|want| (want.miss.va, want.miss.bytes, want.ahead))
            .collect()
    }

    #[test]
    fn range_within_its_window_has_nothing_ahead() {
        let miss = miss(WINDOW_BYTES - 8, 8);
        assert_eq!(wants(&[miss], 99, |_| false).len(), 1);
    }

    #[test]
    fn windows_ahead_begin_at_borders_and_end_with_the_range() {
        let miss = miss(WINDOW_BYTES - 8, 9 + WINDOW_BYTES);
        assert_eq!(
            places(&wants(&[miss], 99, |_| false)),
            [
                (miss.va, miss.bytes, false),
                (WINDOW_BYTES, WINDOW_BYTES + 1, true),
                (2 * WINDOW_BYTES, 1, true)
            ]
        );
    }

    #[test]
    fn windows_ahead_are_limited_and_do_not_wrap_around() {
        let all = wants(&[miss(0, u64::MAX)], usize::MAX, |_| false);
        assert_eq!(all.len() as u64, AHEAD_WINDOWS);
        let last = wants(&[miss(u64::MAX - 9, 9)], usize::MAX, |_| false);
        assert_eq!(last.len(), 1);
    }

    #[test]
    fn misses_come_first_and_windows_ahead_in_turn_without_those_known() {
        let misses = [miss(0, 3 * WINDOW_BYTES), miss(1 << 40, 2 * WINDOW_BYTES)];
        let wants = wants(&misses, 2, |miss| miss.va == WINDOW_BYTES);
        let order: Vec<_> = wants.iter().map(|want| want.miss.va).collect();
        let (second, other) = (2 * WINDOW_BYTES, 1 << 40);
        assert_eq!(order, [0, other, other + WINDOW_BYTES, second]);
        assert_eq!(
            wants.iter().map(|want| want.ahead).collect::<Vec<_>>(),
            [false, false, true, true]
        );
    }
}

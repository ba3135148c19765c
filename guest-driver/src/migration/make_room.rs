// SPDX-License-Identifier: GPL-2.0

//! Making room for a user who has less than the fair share of a full device memory.
//!
//! Called by who is about to move pages there, before any page of the move at hand is isolated; the mmap lock
//! may be held for reading, as in reclaim. Waits for no folio lock: what is on its way elsewhere stays.

use super::{evict::bring_home, CAUSE_SHARE, WINDOW_PAGES};
use crate::{
    kapi::{migrate::PageArrays, trace},
    memory::DeviceMemory,
};

/// Most pages that make room at a time, but for the rest of the last folio: what one message copies.
const MOST_PAGES: usize = WINDOW_PAGES;
/// Most searches for such pages at a time: with what one search looks at, 64 MiB of device memory.
const MOST_SEARCHES: usize = 16;

/// Brings pages of the user who has most home, if there are not `want` pages free and `user` has less than the
/// fair share. A page that something holds, or for which there is no memory, stays.
pub(crate) fn make_room(memory: &DeviceMemory, user: u16, want: usize) {
    let data = memory.data();
    let Some((from, most)) = data.gives_way(user, want) else {
        return;
    };
    let mut left = most.min(MOST_PAGES);
    let mut arrays = PageArrays::default();
    for _ in 0..MOST_SEARCHES {
        let Some(run) = data.next_of(from) else {
            continue;
        };
        let Ok((moved, spare)) = bring_home(memory, run, arrays) else {
            return;
        };
        arrays = spare;
        data.link.stats.to_system_share.add(moved);
        trace::to_system(0, moved, CAUSE_SHARE);
        left = left.saturating_sub(moved as usize);
        if left == 0 {
            return;
        }
    }
}

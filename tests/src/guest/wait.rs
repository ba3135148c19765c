// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waiting for events, always with a limit.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};

/// Longest wait for an event that follows from what was done, 20 s: under TCG with a busy host
/// seconds are normal.
pub const EVENT_LIMIT: Duration = Duration::from_secs(20);

/// Waits until the condition holds; `what` names it when it never does.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + EVENT_LIMIT;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("{what}: did not happen within {EVENT_LIMIT:?}");
        }
        std::thread::yield_now();
    }
    Ok(())
}

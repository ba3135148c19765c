// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waiting for events, always with a limit.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};

use crate::case::TIME_FACTOR_VARIABLE;

/// Longest wait, on a base kernel, for an event that follows from what was done, 20 s: under TCG
/// with a busy host seconds are normal.
const EVENT_LIMIT: Duration = Duration::from_secs(20);

/// Longest wait for an event that follows from what was done.
pub fn event_limit() -> Duration {
    on_this_kernel(EVENT_LIMIT)
}

/// What a limit that is meant for a base kernel is on this one; the host tells how much slower
/// it is.
pub fn on_this_kernel(limit: Duration) -> Duration {
    let factor = std::env::var(TIME_FACTOR_VARIABLE).ok();
    limit * factor.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Waits until the condition holds; `what` names it when it never does.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = event_limit();
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("{what}: did not happen within {limit:?}");
        }
        std::thread::yield_now();
    }
    Ok(())
}

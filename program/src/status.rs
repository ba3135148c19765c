// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Exit statuses; 0 is for done.

use std::process::ExitCode;

/// It was tried and failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// Of programs that run another one: they themselves failed, as `env(1)` and its kind say it.
pub const NOT_TRIED: u8 = 125;
/// The other program is there and cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// There is no such program.
pub const NO_PROGRAM: u8 = 127;

/// Of programs that find out whether something is as it should be.
pub fn exit_code(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

/// What a shell makes of an end by a signal, of real-time signals too.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from((128 + signal) & 0xff).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_count_from_128_on() {
        assert_eq!(of_signal(9), 137);
        assert_eq!(of_signal(64), 192);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values that several programs take as options.

use std::time::Duration;

/// Reads a number of seconds, which may have a fraction and is more than 0.
///
/// # Errors
///
/// It is none, or so many that no [`Duration`] holds them.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if seconds <= 0.0 {
        return Err("must be more than 0".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_more_than_none_and_not_endless() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "x", "0", "-1", "inf", "NaN", "1e40"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where two results differ.
#![forbid(unsafe_code)]

/// Differing lines shown.
const SHOWN_LINES: usize = 40;
/// Lines shown of what a script with another result wrote to standard error: a trace of Python with
/// what comes before.
const SHOWN_ERRORS: usize = 60;

/// Nothing if the results are equal, else the lines that only one has, each with its place.
pub fn differences(without: &str, storm: &str) -> Vec<String> {
    if without == storm {
        return Vec::new();
    }
    let pairs = [
        ("without a storm", without, storm),
        ("in the storm", storm, without),
    ];
    let mut shown = vec!["It came to something else than without a storm".to_owned()];
    for (place, one, other) in pairs {
        let mut others: Vec<&str> = other.lines().collect();
        others.sort_unstable();
        let only: Vec<&str> = one
            .lines()
            .filter(|line| others.binary_search(line).is_err())
            .collect();
        let lines = only.iter().take(SHOWN_LINES);
        shown.extend(lines.map(|line| format!("only {place}: {line}")));
        if only.len() > SHOWN_LINES {
            shown.push(format!("and {} more {place}", only.len() - SHOWN_LINES));
        }
    }
    if shown.len() == 1 {
        shown.push("the same lines, in another order or number".to_owned());
    }
    shown
}

/// The end of what a script wrote to standard error.
pub fn last_lines(text: &str) -> impl Iterator<Item = String> + '_ {
    let count = text.lines().count();
    let lines = text.lines().skip(count.saturating_sub(SHOWN_ERRORS));
    lines.map(|line| format!("standard error: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_results_do_not_differ() {
        assert!(differences("a\nb\n", "a\nb\n").is_empty());
    }

    #[test]
    fn lines_of_one_result_alone_are_shown() {
        let shown = differences("a ok\nb ok\n", "a ok\nb failed\n");
        assert_eq!(
            shown[1..],
            ["only without a storm: b ok", "only in the storm: b failed"]
        );
    }

    #[test]
    fn another_order_is_a_difference() {
        assert_eq!(differences("a\nb\n", "b\na\n").len(), 2);
    }

    #[test]
    fn the_end_of_a_long_text_is_shown() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let lines: Vec<String> = last_lines(&text).collect();
        assert_eq!(lines.len(), SHOWN_ERRORS);
        assert_eq!(lines[SHOWN_ERRORS - 1], "standard error: 99");
    }
}

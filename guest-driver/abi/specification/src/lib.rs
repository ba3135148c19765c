// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The specification of the coax device: its statements, for tests and for programs that check a device.
//!
//! A test says by [`covers!`] which statements it shows; a name that is no statement does not compile. What
//! makes tables and page of the text, and looks for statements without a test, is behind the feature `tools`.
#![forbid(unsafe_code)]

#[cfg(feature = "tools")]
pub mod coverage;
#[cfg(feature = "tools")]
pub mod diagram;
#[cfg(feature = "tools")]
pub mod page;
#[cfg(feature = "tools")]
pub mod tables;
#[cfg(feature = "tools")]
pub mod wire;

/// The text, in Markdown.
pub const TEXT: &str = include_str!("../../SPECIFICATION.md");

/// What a paragraph that is a statement begins with, before its number.
const DEVICE: &[u8] = b"\n**coax.dev.";
const DRIVER: &[u8] = b"\n**coax.drv.";
/// Numbers are smaller.
const MOST: usize = 256;

/// Which numbers are given.
struct Stated {
    device: [bool; MOST],
    driver: [bool; MOST],
}

const STATED: Stated = read(TEXT.as_bytes());

const fn read(text: &[u8]) -> Stated {
    let mut stated = Stated {
        device: [false; MOST],
        driver: [false; MOST],
    };
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'\n' {
            if let Some(number) = number(text, at, DEVICE) {
                assert!(!stated.device[number], "a device statement is there twice");
                stated.device[number] = true;
            }
            if let Some(number) = number(text, at, DRIVER) {
                assert!(!stated.driver[number], "a driver statement is there twice");
                stated.driver[number] = true;
            }
        }
        at += 1;
    }
    stated
}

/// The number behind `prefix`, if that is at `at`.
const fn number(text: &[u8], at: usize, prefix: &[u8]) -> Option<usize> {
    let mut n = 0;
    while n < prefix.len() {
        if at + n >= text.len() || text[at + n] != prefix[n] {
            return None;
        }
        n += 1;
    }
    let (mut number, mut at) = (0, at + prefix.len());
    while at < text.len() && text[at].is_ascii_digit() {
        number = number * 10 + (text[at] - b'0') as usize;
        at += 1;
    }
    Some(number)
}

/// Whether `name`, such as `coax.dev.1`, is a statement.
pub const fn states(name: &str) -> bool {
    let name = name.as_bytes();
    // As it stands in the text, but for what is in front.
    let (_, device) = DEVICE.split_at(3);
    let (_, driver) = DRIVER.split_at(3);
    match (number(name, 0, device), number(name, 0, driver)) {
        (Some(number), _) => number < MOST && STATED.device[number],
        (_, Some(number)) => number < MOST && STATED.driver[number],
        _ => false,
    }
}

/// Says, in a test, which statements it shows.
///
/// ```
/// coax_specification::covers!("coax.dev.1", "coax.drv.1");
/// ```
///
/// ```compile_fail
/// coax_specification::covers!("coax.dev.255");
/// ```
#[macro_export]
macro_rules! covers {
    ($($name:literal),+ $(,)?) => {
        const { $(assert!($crate::states($name), concat!("no statement ", $name));)+ }
    };
}

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its name, such as `coax.dev.1`.
    pub name: &'static str,
    /// What it says, in Markdown.
    pub text: &'static str,
}

/// All statements, in the order of the text.
pub fn statements() -> impl Iterator<Item = Statement> {
    TEXT.split("\n\n").filter_map(|paragraph| {
        let paragraph = paragraph.trim_start().strip_prefix("**")?;
        let (name, text) = paragraph.split_once("** ")?;
        states(name).then_some(Statement { name, text })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_is_a_paragraph_of_its_own() {
        let all: Vec<Statement> = statements().collect();
        let stated = STATED.device.iter().chain(&STATED.driver);
        assert_eq!(stated.filter(|stated| **stated).count(), all.len());
    }

    #[test]
    fn every_statement_says_what_must_or_may_be() {
        for Statement { name, text } in statements() {
            let words = ["MUST", "SHOULD", "MAY"];
            assert!(words.iter().any(|word| text.contains(word)), "{name}");
        }
    }

    #[test]
    fn other_names_are_no_statements() {
        for name in [
            "coax.dev.0",
            "coax.dev.255",
            "coax.dev.999",
            "coax.drv.",
            "dev.1",
            "",
        ] {
            assert!(!states(name), "{name}");
        }
    }
}

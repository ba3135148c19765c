// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How users name parts of a process's memory, and which mappings they mean.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::str::FromStr;

use coax::PageRange;

use crate::maps::Mapping;

/// A part of a process's memory as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Every mapping.
    All,
    /// Addresses.
    Pages(PageRange),
    /// Mappings of that name.
    Name(OsString),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some((start, length)) = text.split_once('+') {
            if let Some(start) = hexadecimal(start) {
                let length = size(length)
                    .ok_or_else(|| format!("{length:?} is no length in bytes, K, M or G"))?;
                return pages(start, start.checked_add(length));
            }
        }
        if let Some((start, end)) = text.split_once('-') {
            if let (Some(start), Some(end)) = (hexadecimal(start), hexadecimal(end)) {
                return pages(start, Some(end));
            }
        }
        if text.is_empty() {
            return Err("a range cannot be empty".to_owned());
        }
        Ok(Self::Name(text.into()))
    }
}

impl Selector {
    /// As an argument of a command line, where names need be no text.
    pub fn from_argument(argument: &OsStr) -> Result<Self, String> {
        match argument.to_str() {
            Some(text) => text.parse(),
            // All else is written in ASCII.
            None => Ok(Self::Name(argument.to_owned())),
        }
    }

    /// The parts of mappings that are meant, in the order of the mappings.
    pub fn select<'a>(&self, mappings: &'a [Mapping]) -> Vec<(&'a Mapping, PageRange)> {
        mappings
            .iter()
            .filter_map(|mapping| {
                let part = match self {
                    Self::All => Some(mapping.range),
                    Self::Name(name) => mapping.is_named(name).then_some(mapping.range),
                    Self::Pages(range) => intersection(*range, mapping.range),
                };
                Some((mapping, part?))
            })
            .collect()
    }
}

/// Whole pages from `start` to before `end`, if there are any.
fn pages(start: u64, end: Option<u64>) -> Result<Selector, String> {
    match end {
        None => Err("the range runs past the end of the address space".to_owned()),
        Some(end) if end <= start => Err(format!("{end:x} does not lie after {start:x}")),
        Some(end) => Ok(Selector::Pages(PageRange::covering(start, end - start))),
    }
}

/// What two ranges have in common.
pub fn intersection(a: PageRange, b: PageRange) -> Option<PageRange> {
    let start = a.addr.max(b.addr);
    let end = a
        .addr
        .saturating_add(a.len)
        .min(b.addr.saturating_add(b.len));
    (start < end).then(|| PageRange::new(start, end - start))
}

/// An address, with or without `0x`.
fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // `from_str_radix` would take a sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// A number of bytes: decimal, `0x…`, or decimal with K, M or G.
fn size(text: &str) -> Option<u64> {
    if text.starts_with("0x") {
        return hexadecimal(text);
    }
    let (digits, shift) = match text.chars().last()? {
        'K' | 'k' => (&text[..text.len() - 1], 10),
        'M' | 'm' => (&text[..text.len() - 1], 20),
        'G' | 'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(u64, u64)> {
        match text.parse() {
            Ok(Selector::Pages(range)) => Some((range.addr, range.len)),
            _ => None,
        }
    }

    #[test]
    fn start_and_end_are_hexadecimal() {
        assert_eq!(parsed("1000-3000"), Some((0x1000, 0x2000)));
        assert_eq!(
            parsed("0x7f0000000000-0x7f0000001000"),
            Some((0x7f00_0000_0000, 0x1000))
        );
    }

    #[test]
    fn length_is_decimal_hexadecimal_or_has_a_unit() {
        assert_eq!(parsed("1000+8192"), Some((0x1000, 8192)));
        assert_eq!(parsed("1000+0x2000"), Some((0x1000, 0x2000)));
        assert_eq!(parsed("200000+2M"), Some((0x20_0000, 2 << 20)));
    }

    #[test]
    fn partial_pages_count_whole() {
        assert_eq!(parsed("1fff-2001"), Some((0x1000, 0x2000)));
    }

    #[test]
    fn names_may_look_a_little_like_ranges() {
        for name in [
            "[heap]",
            "libstdc++.so.6",
            "ld-linux-x86-64.so.2",
            "busybox",
        ] {
            assert_eq!(name.parse(), Ok(Selector::Name(name.into())));
        }
    }

    #[test]
    fn empty_reversed_and_overflowing_ranges_are_refused() {
        for text in [
            "",
            "1000-1000",
            "2000-1000",
            "1000+0",
            "1000+",
            "1000+x",
            "1000+99999999999G",
            "ffffffffffffffff+2",
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_select_the_mapped_part_only() {
        let mappings = [
            Mapping::for_test(0x1000, 0x3000, ""),
            Mapping::for_test(0x5000, 0x6000, "/lib/libc.so.6"),
        ];
        let selector: Selector = "2000-5800".parse().expect("a range");
        let parts: Vec<_> = selector
            .select(&mappings)
            .into_iter()
            .map(|(_, r)| (r.addr, r.len))
            .collect();
        assert_eq!(parts, [(0x2000, 0x1000), (0x5000, 0x1000)]);
    }
}

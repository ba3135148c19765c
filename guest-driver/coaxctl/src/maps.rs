// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `/proc/PID/maps`.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use coax::PageRange;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it lies.
    pub range: PageRange,
    /// `rwxp` or `rwxs`, with `-` for what is missing.
    pub rights: String,
    /// Path, `[heap]` and the like, or nothing for anonymous memory.
    pub name: String,
}

impl Mapping {
    /// Whether the user's `name` means this mapping.
    pub fn is_named(&self, name: &str) -> bool {
        if name == "[anon]" {
            return self.name.is_empty();
        }
        self.name == name || self.name.rsplit('/').next() == Some(name)
    }

    /// Whether pages that are the process's own can come into being in it.
    pub fn is_private_and_writable(&self) -> bool {
        self.rights.contains('w') && self.rights.ends_with('p')
    }

    /// Whether it belongs to the kernel: `[vsyscall]` is listed for every process, but it is
    /// no part of the process's page tables.
    fn is_foreign(&self) -> bool {
        self.name == "[vsyscall]"
    }

    /// A mapping for tests of other files.
    #[cfg(test)]
    pub fn for_test(start: u64, end: u64, name: &str) -> Self {
        let range = PageRange::new(start, end - start);
        Self {
            range,
            rights: "rw-p".to_owned(),
            name: name.to_owned(),
        }
    }
}

/// The mappings of a process, in the order of their addresses.
pub fn read(pid: u32) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read_to_string(&path).with_context(|| format!("Cannot read {path}"))?;
    parse(&text).with_context(|| format!("Cannot understand {path}"))
}

fn parse(text: &str) -> Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    for line in text.lines() {
        let mapping = parse_line(line).with_context(|| format!("Malformed line {line:?}"))?;
        if !mapping.is_foreign() {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

/// `START-END RIGHTS OFFSET MAJOR:MINOR INODE NAME`, where the name may contain blanks.
fn parse_line(line: &str) -> Option<Mapping> {
    let (addresses, rest) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let length = u64::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    let mut fields = rest.splitn(5, ' ');
    let rights = fields.next()?.to_owned();
    let name = fields.nth(3).unwrap_or_default().trim_start().to_owned();
    Some(Mapping {
        range: PageRange::new(start, length),
        rights,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55d0c2a00000-55d0c2a21000 rw-p 00000000 00:00 0                          [heap]
7f5c00000000-7f5c00200000 rw-p 00000000 00:00 0
7f5c10000000-7f5c10001000 r--s 00000000 08:01 131                        /tmp/a file
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn lines_give_range_rights_and_name() {
        let mappings = parse(TEXT).expect("well-formed");
        assert_eq!(mappings.len(), 3);
        assert_eq!(mappings[0].range, PageRange::new(0x55d0_c2a0_0000, 0x21000));
        assert_eq!(mappings[0].name, "[heap]");
        assert!(mappings[0].is_private_and_writable());
        assert!(!mappings[2].is_private_and_writable());
        assert_eq!(mappings[1].name, "");
        assert_eq!(mappings[2].rights, "r--s");
        assert_eq!(mappings[2].name, "/tmp/a file");
    }

    #[test]
    fn names_match_whole_or_by_last_part() {
        let mappings = parse(TEXT).expect("well-formed");
        assert!(mappings[0].is_named("[heap]"));
        assert!(mappings[1].is_named("[anon]"));
        assert!(mappings[2].is_named("a file"));
        assert!(mappings[2].is_named("/tmp/a file"));
        assert!(!mappings[2].is_named("file"));
    }

    #[test]
    fn own_mappings_can_be_read() {
        let mappings = read(std::process::id()).expect("/proc is mounted");
        assert!(mappings.iter().any(|mapping| mapping.name == "[stack]"));
    }
}

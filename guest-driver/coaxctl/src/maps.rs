// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process has mapped.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result};
use coax::PageRange;

use crate::procmap::{self, Found};

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it lies.
    pub range: PageRange,
    /// `rwxp` or `rwxs`, with `-` for what is missing.
    pub rights: String,
    /// Path, `[heap]` and the like, or nothing for anonymous memory.
    pub name: OsString,
}

impl Mapping {
    /// Whether the user's `name` means this mapping.
    pub fn is_named(&self, name: &OsStr) -> bool {
        if name == "[anon]" {
            return self.name.is_empty();
        }
        let last = self.name.as_bytes().rsplit(|byte| *byte == b'/').next();
        self.name == name || last == Some(name.as_bytes())
    }

    /// Whether pages that are the process's own can come into being in it.
    pub fn is_private_and_writable(&self) -> bool {
        self.rights.contains('w') && self.rights.ends_with('p')
    }

    /// A mapping for tests of other files.
    #[cfg(test)]
    pub fn for_test(start: u64, end: u64, name: &str) -> Self {
        let range = PageRange::new(start, end - start);
        Self {
            range,
            rights: "rw-p".to_owned(),
            name: name.into(),
        }
    }
}

/// The mappings of a process, in the order of their addresses.
pub fn read(pid: u32) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/maps");
    let file = File::open(&path).with_context(|| format!("Cannot open {path}"))?;
    let mut mappings = Vec::new();
    let mut from = 0;
    while let Some(found) =
        procmap::next(&file, from).with_context(|| format!("Cannot query {path}"))?
    {
        from = found.end;
        mappings.push(Mapping::from(found));
    }
    Ok(mappings)
}

impl From<Found> for Mapping {
    fn from(found: Found) -> Self {
        let letters = [
            (procmap::READABLE, 'r', '-'),
            (procmap::WRITABLE, 'w', '-'),
            (procmap::EXECUTABLE, 'x', '-'),
            (procmap::SHARED, 's', 'p'),
        ];
        let letter = |(flag, set, not_set)| {
            if found.flags & flag != 0 {
                set
            } else {
                not_set
            }
        };
        Mapping {
            range: PageRange::new(found.start, found.end - found.start),
            rights: letters.map(letter).iter().collect(),
            name: found.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flags: u64, name: &str) -> Mapping {
        Mapping::from(Found {
            start: 0x7f5c_1000_0000,
            end: 0x7f5c_1000_2000,
            flags,
            name: name.into(),
        })
    }

    #[test]
    fn a_mapping_has_range_rights_and_name() {
        let mapping = found(procmap::READABLE | procmap::WRITABLE, "");
        assert_eq!(mapping.range, PageRange::new(0x7f5c_1000_0000, 0x2000));
        assert_eq!(mapping.rights, "rw-p");
        assert!(mapping.is_private_and_writable());
        let mapping = found(procmap::EXECUTABLE | procmap::SHARED, "/tmp/a file");
        assert_eq!(mapping.rights, "--xs");
        assert!(!mapping.is_private_and_writable());
    }

    #[test]
    fn names_match_whole_or_by_last_part() {
        let is_named = |mapping: &Mapping, name: &str| mapping.is_named(name.as_ref());
        assert!(is_named(&found(0, "[heap]"), "[heap]"));
        assert!(is_named(&found(0, ""), "[anon]"));
        let mut file = found(0, "/tmp/a file");
        assert!(is_named(&file, "a file") && is_named(&file, "/tmp/a file"));
        assert!(!is_named(&file, "file"));
        file.name = OsStr::from_bytes(b"/tmp/\xff").to_owned();
        assert!(file.is_named(OsStr::from_bytes(b"\xff")));
        assert!(!file.is_named(OsStr::from_bytes(b"\xfe")));
    }

    #[test]
    fn own_mappings_are_those_of_the_text() -> Result<()> {
        let mappings = match read(std::process::id()) {
            // Before Linux 6.11.
            Err(error)
                if error
                    .downcast_ref::<std::io::Error>()
                    .and_then(std::io::Error::raw_os_error)
                    == Some(libc::ENOTTY) =>
            {
                return Ok(());
            }
            other => other?,
        };
        let text = std::fs::read_to_string("/proc/self/maps")?;
        let stack = mappings.iter().find(|mapping| mapping.name == "[stack]");
        let line = text.lines().find(|line| line.ends_with("[stack]"));
        let (stack, line) = (stack.context("A stack")?, line.context("Its line")?);
        assert!(line.contains(&stack.rights), "{line}: {stack:?}");
        Ok(())
    }
}

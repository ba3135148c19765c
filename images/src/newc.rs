// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes cpio archives in the `newc` format, which the kernel unpacks as its root file system.
//!
//! Owners and device nodes are only numbers in the archive, so no root is needed. The format is
//! that of `Documentation/driver-api/early-userspace/buffer-format.rst`: a header of ASCII
//! hexadecimal fields, the name, and the contents, each padded to four bytes.

use std::collections::BTreeSet;
use std::io::{self, Write};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;
const TYPE_CHARACTER: u32 = 0o020_000;
/// The kernel accepts archives one after the other at this alignment.
const SEGMENT_ALIGNMENT: u64 = 512;

/// An archive being written. Parent folders come by themselves.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    written: u64,
    inode: u32,
    folders: BTreeSet<String>,
}

/// Fields of a header that are not always the same.
struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    contents: &'a [u8],
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Archive {
            out,
            written: 0,
            inode: 0,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a folder.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let name = relative(path);
        self.parents(name)?;
        if name.is_empty() || !self.folders.insert(name.to_owned()) {
            return Ok(());
        }
        self.entry(&Entry {
            name,
            mode: TYPE_DIRECTORY | 0o755,
            device: (0, 0),
            contents: &[],
        })
    }

    /// Adds a file with permission bits `mode`.
    ///
    /// # Errors
    ///
    /// Those of the writer; `InvalidInput` for contents of 4 GiB and more.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let name = relative(path);
        self.parents(name)?;
        let mode = TYPE_REGULAR | (mode & 0o7777);
        self.entry(&Entry {
            name,
            mode,
            device: (0, 0),
            contents,
        })
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let name = relative(path);
        self.parents(name)?;
        let contents = target.as_bytes();
        self.entry(&Entry {
            name,
            mode: TYPE_SYMLINK | 0o777,
            device: (0, 0),
            contents,
        })
    }

    /// Adds a character device.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn character(&mut self, path: &str, mode: u32, device: (u32, u32)) -> io::Result<()> {
        let name = relative(path);
        self.parents(name)?;
        let mode = TYPE_CHARACTER | (mode & 0o7777);
        self.entry(&Entry {
            name,
            mode,
            device,
            contents: &[],
        })
    }

    /// Writes the end; another archive may follow in the same file.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(&Entry {
            name: TRAILER,
            mode: 0,
            device: (0, 0),
            contents: &[],
        })?;
        self.pad(SEGMENT_ALIGNMENT)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let size = u32::try_from(entry.contents.len())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let name_size = u32::try_from(entry.name.len() + 1)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.inode += 1;
        let links = if entry.mode & TYPE_DIRECTORY == TYPE_DIRECTORY {
            2
        } else {
            1
        };
        // Owner, group, time, and the archive's own device are zero: the same input gives the
        // same archive.
        let fields = [
            self.inode,
            entry.mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            entry.device.0,
            entry.device.1,
            name_size,
            0,
        ];
        let header: String = fields.iter().fold(MAGIC.to_owned(), |text, field| {
            text + &format!("{field:08x}")
        });
        self.write(header.as_bytes())?;
        self.write(entry.name.as_bytes())?;
        self.write(&[0])?;
        self.pad(4)?;
        self.write(entry.contents)?;
        self.pad(4)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), missing), &mut self.out)?;
        self.written += missing;
        Ok(())
    }
}

/// Names in an archive have no slash at either end.
fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An independent reader: (name, mode, contents).
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            let header = std::str::from_utf8(&bytes[at..at + 110]).expect("ASCII");
            assert_eq!(&header[..6], MAGIC);
            let field = |index: usize| {
                let start = 6 + 8 * index;
                usize::from_str_radix(&header[start..start + 8], 16).expect("hexadecimal")
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_size - 1];
            let name = String::from_utf8(name.to_vec()).expect("our names are text");
            let data = (at + 110 + name_size).next_multiple_of(4);
            at = (data + size).next_multiple_of(4);
            if name == TRAILER {
                return entries;
            }
            let mode = u32::try_from(mode).expect("eight digits");
            entries.push((name, mode, bytes[data..data + size].to_vec()));
        }
    }

    #[test]
    fn parents_come_once_and_before_their_children() {
        let mut archive = Archive::new(Vec::new());
        archive
            .file("/usr/bin/a", 0o755, b"1")
            .expect("a vector takes all");
        archive
            .file("/usr/bin/b", 0o755, b"2")
            .expect("a vector takes all");
        let names: Vec<String> = read(&archive.finish().expect("a vector takes all"))
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/a", "usr/bin/b"]);
    }

    #[test]
    fn contents_and_modes_survive() {
        let mut archive = Archive::new(Vec::new());
        archive
            .file("f", 0o640, b"odd size")
            .expect("a vector takes all");
        archive.symlink("l", "/target").expect("a vector takes all");
        archive
            .character("dev/console", 0o600, (5, 1))
            .expect("a vector takes all");
        let entries = read(&archive.finish().expect("a vector takes all"));
        assert_eq!(entries[0], ("f".into(), 0o100_640, b"odd size".to_vec()));
        assert_eq!(entries[1], ("l".into(), 0o120_777, b"/target".to_vec()));
        assert_eq!(entries[3].1, 0o020_600);
    }

    #[test]
    fn archives_end_aligned_so_that_others_can_follow() {
        let mut archive = Archive::new(Vec::new());
        archive.file("f", 0o644, b"x").expect("a vector takes all");
        let bytes = archive.finish().expect("a vector takes all");
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn the_same_input_gives_the_same_archive() {
        let make = || {
            let mut archive = Archive::new(Vec::new());
            archive
                .file("a/b", 0o644, b"x")
                .expect("a vector takes all");
            archive.finish().expect("a vector takes all")
        };
        assert_eq!(make(), make());
    }
}

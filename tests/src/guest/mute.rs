// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file system with one file, whose pages come only when they are let: until then whoever faults on one
//! waits in the kernel, as for a server that hangs.
//!
//! It speaks as much of FUSE (`include/uapi/linux/fuse.h`) as the kernel asks of it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use nix::mount::{mount, umount2, MntFlags, MsFlags};

use super::memory::{Mapping, PAGE};
use super::process::{fork, readable, Child};
use super::wait;
use crate::case::CaseResult;

/// Bytes of the file.
const BYTES: u64 = 1 << 30;
/// The file's name, and its node; the folder is node 1.
const NAME: &str = "file";
const FILE_NODE: u64 = 2;
const ROOT_NODE: u64 = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// Bytes of `struct fuse_in_header` and `struct fuse_out_header`.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// The kernel reads with room for a request of this many bytes, at least `FUSE_MIN_READ_BUFFER`.
const BUFFER: usize = 1 << 16;
/// An hour, for which the kernel need not ask again.
const VALID: u64 = 3600;

/// Words that conductor and server share.
const WAITING: usize = 0;
const LET: usize = 8;

/// The mounted file system; dropping it ends the server, and whoever waits has an error.
#[derive(Debug)]
pub struct Mute {
    folder: PathBuf,
    shared: Mapping,
    server: Option<Child>,
}

impl Mute {
    /// Mounts one below this folder, which is made; every byte of its file is `byte`. The caller has one
    /// thread.
    pub fn mount(folder: &Path, byte: u8) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.context("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40755,user_id=0,group_id=0,allow_other",
            fuse.as_raw_fd()
        );
        let none = None::<&str>;
        mount(
            none,
            folder,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .context("Mounting a FUSE file system")?;
        let shared = Mapping::shared(PAGE)?;
        let server = fork(|| serve(&fuse, &shared, byte))?;
        Ok(Mute {
            folder: folder.to_owned(),
            shared,
            server: Some(server),
        })
    }

    /// Opens the file to be read.
    pub fn open(&self) -> Result<File> {
        File::open(self.folder.join(NAME)).context("Opening the mute file")
    }

    /// Maps so many pages of the file from the first on, to be read.
    pub fn map(&self, pages: usize) -> Result<Mapping> {
        let file = self.open()?;
        Mapping::file_shared(file.as_fd(), pages * PAGE, super::memory::READ_ONLY)
    }

    /// Reads that wait.
    pub fn waiting(&self) -> u64 {
        self.shared.load(WAITING)
    }

    /// Waits until somebody waits for a page of the file.
    pub fn await_reader(&self) -> Result<()> {
        wait::until("A read of the mute file", || Ok(self.waiting() > 0))
    }

    /// Lets all pages come.
    pub fn speak(&self) {
        self.shared.store(LET, 1);
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        // Its descriptor is the connection's last: all that wait get an error.
        self.server = None;
        // Fails if somebody has the file open; the mount then goes with them.
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}

/// A request for a page that has not been answered.
struct Waiting {
    unique: u64,
    bytes: usize,
}

/// Answers until the file system is unmounted.
fn serve(fuse: &File, shared: &Mapping, byte: u8) -> CaseResult {
    /// How soon the conductor's word is seen.
    const INTERVAL: std::time::Duration = std::time::Duration::from_millis(20);
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        if shared.load(LET) != 0 {
            for read in waiting.drain(..) {
                answer(fuse, read.unique, 0, &vec![byte; read.bytes])?;
            }
            shared.store(WAITING, 0);
        }
        if !readable(fuse.as_fd(), INTERVAL)? {
            continue;
        }
        let len = match (&mut &*fuse).read(&mut buffer) {
            Ok(len) => len,
            // Unmounted.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            // A request that was taken back.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context("Reading a request"),
        };
        if let Some(read) = request(fuse, &buffer[..len])? {
            waiting.push(read);
            shared.store(WAITING, waiting.len() as u64);
        }
    }
}

/// Answers a request, unless it is for a page.
fn request(fuse: &File, bytes: &[u8]) -> Result<Option<Waiting>> {
    ensure!(
        bytes.len() >= IN_HEADER,
        "A request of {} bytes",
        bytes.len()
    );
    let u32_at = |at: usize| word(bytes, at, 4);
    let opcode = u32::try_from(u32_at(4))?;
    let (unique, node) = (word(bytes, 8, 8), word(bytes, 16, 8));
    match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => {}
        INIT => answer(fuse, unique, 0, &init())?,
        LOOKUP => {
            let name = &bytes[IN_HEADER..];
            if node == ROOT_NODE && name.strip_suffix(b"\0") == Some(NAME.as_bytes()) {
                answer(fuse, unique, 0, &entry())?;
            } else {
                answer(fuse, unique, libc::ENOENT, &[])?;
            }
        }
        GETATTR => {
            let mut reply = Reply::default();
            reply.u64(VALID).u64(0).attributes(node);
            answer(fuse, unique, 0, &reply.0)?;
        }
        OPEN | OPENDIR => answer(fuse, unique, 0, &[0; 16])?,
        READ => {
            // `struct fuse_read_in`: handle, offset, size.
            let bytes = usize::try_from(u32_at(IN_HEADER + 16))?;
            return Ok(Some(Waiting { unique, bytes }));
        }
        _ => answer(fuse, unique, libc::ENOSYS, &[])?,
    }
    Ok(None)
}

fn word(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(from) = bytes.get(at..at + len) {
        word[..len].copy_from_slice(from);
    }
    u64::from_le_bytes(word)
}

/// Fields in their order.
#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// `struct fuse_attr` of a node.
    fn attributes(&mut self, node: u64) -> &mut Self {
        let (size, mode) = match node {
            FILE_NODE => (BYTES, libc::S_IFREG | 0o644),
            _ => (0, libc::S_IFDIR | 0o755),
        };
        self.u64(node).u64(size).u64(size / 512);
        self.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        self.u32(mode)
            .u32(1)
            .u32(0)
            .u32(0)
            .u32(0)
            .u32(PAGE as u32)
            .u32(0)
    }
}

/// `struct fuse_init_out`: no read-ahead, so that each page is asked for by itself.
fn init() -> Vec<u8> {
    let mut reply = Reply::default();
    reply.u32(7).u32(31).u32(0).u32(0);
    // Most requests in the background, and from how many on it is congested.
    reply.u32(64 << 16 | 64).u32(PAGE as u32).u32(1).u32(0);
    reply.0.resize(64, 0);
    reply.0
}

/// `struct fuse_entry_out` of the file.
fn entry() -> Vec<u8> {
    let mut reply = Reply::default();
    reply
        .u64(FILE_NODE)
        .u64(0)
        .u64(VALID)
        .u64(VALID)
        .u32(0)
        .u32(0);
    reply.attributes(FILE_NODE);
    reply.0
}

fn answer(fuse: &File, unique: u64, error: i32, body: &[u8]) -> Result<()> {
    let mut reply = Reply::default();
    let len = u32::try_from(OUT_HEADER + body.len())?;
    reply.u32(len);
    reply.0.extend((-error).to_le_bytes());
    reply.u64(unique);
    reply.0.extend(body);
    match (&mut &*fuse).write(&reply.0) {
        Ok(len) if len == reply.0.len() => Ok(()),
        // Nobody waits for it any more.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => bail!("Answering request {unique}: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_sizes_of_the_kernels_structures() {
        assert_eq!(init().len(), 64);
        assert_eq!(entry().len(), 128);
        let mut attributes = Reply::default();
        attributes.attributes(FILE_NODE);
        assert_eq!(attributes.0.len(), 88);
    }
}

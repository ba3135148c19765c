// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file system of a case's own.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use anyhow::{ensure, Context as _, Result};
use nix::mount::{mount, umount, MsFlags};

use super::memory::{Mapping, READ_WRITE};
use super::pattern::same;
use crate::case::Skip;

/// Runs a program of busybox's and returns what it says.
fn run(words: &[&str]) -> Result<String> {
    let program = Program::new("/bin/busybox").args(words).output();
    let output = program.with_context(|| words.join(" "))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", words.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A file system on a disk of memory, gone with this value.
#[derive(Debug)]
pub struct Disk {
    mounted: PathBuf,
    device: PathBuf,
}

impl Disk {
    /// An ext4 file system (made as ext2, which that driver takes too) on a loop device.
    pub fn new() -> Result<Self> {
        const IMAGE: &str = "/tmp/coax-disk.img";
        let image = File::create(IMAGE).context(IMAGE)?;
        image.set_len(16 << 20)?;
        if !Path::new("/dev/loop0").exists() {
            return Err(Skip("the kernel has no loop devices".into()).into());
        }
        run(&["mke2fs", "-F", IMAGE])?;
        let device = run(&["losetup", "-f"])?;
        run(&["losetup", &device, IMAGE])?;
        fs::remove_file(IMAGE)?;
        let mounted = PathBuf::from("/tmp/coax-disk");
        fs::create_dir_all(&mounted)?;
        let disk = Disk {
            mounted,
            device: device.into(),
        };
        let (from, none) = (Some(disk.device.as_path()), MsFlags::empty());
        mount(from, &disk.mounted, Some("ext4"), none, None::<&str>).context("mount")?;
        Ok(disk)
    }

    /// A file with this content, and a shared mapping of it that has been read.
    pub fn file(&self, content: &[u8]) -> Result<(File, Mapping)> {
        let path = self.mounted.join("file");
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(true);
        let mut file = options
            .open(&path)
            .with_context(|| path.display().to_string())?;
        file.write_all(content)?;
        let memory = Mapping::file_shared(file.as_fd(), content.len(), READ_WRITE)?;
        same("a fresh file", &memory.to_vec(), content)?;
        Ok((file, memory))
    }

    /// Has whoever writes to the file system wait, until [`Disk::thaw`].
    pub fn freeze(&self) -> Result<()> {
        run(&["fsfreeze", "--freeze", &self.mounted.to_string_lossy()]).map(drop)
    }

    /// Lets writers go on.
    pub fn thaw(&self) -> Result<()> {
        run(&["fsfreeze", "--unfreeze", &self.mounted.to_string_lossy()]).map(drop)
    }

    /// What the disk itself holds of the file: the page cache is dropped first.
    pub fn reread(&self, file: File, memory: Mapping) -> Result<Vec<u8>> {
        file.sync_all().context("fsync")?;
        drop((file, memory));
        fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches")?;
        fs::read(self.mounted.join("file")).context("The file")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left over ends with the VM.
        let _ = umount(&self.mounted);
        let detach = ["losetup".as_ref(), "-d".as_ref(), self.device.as_os_str()];
        let _ = Program::new("/bin/busybox").args(detach).status();
    }
}

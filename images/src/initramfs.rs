// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's root file system: a base that is kept, and a small part for each VM.
//!
//! The kernel unpacks archives that follow each other in one file, later entries over earlier
//! ones, so a VM's job is appended to a copy of the base.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::job::{JobFile, JOB_PATH};
use crate::launch::GuestFile;
use crate::newc::Archive;

/// A host file that goes into the base.
#[derive(Clone, Debug)]
pub struct Member {
    /// Path in the guest.
    pub guest_path: String,
    /// File on the host.
    pub host_path: PathBuf,
    /// Permission bits.
    pub mode: u32,
}

/// A symbolic link in the base.
#[derive(Clone, Debug)]
pub struct Link {
    /// Path in the guest.
    pub guest_path: String,
    /// What it names.
    pub target: String,
}

/// Folders that init mounts on, or that programs expect.
const FOLDERS: &[&str] = &[
    "proc", "sys", "dev", "tmp", "run", "root", "mnt", "etc", "var",
];

/// The guest's own name among them.
const HOSTS: &[u8] =
    b"127.0.0.1 localhost\n127.0.1.1 coax\n::1 localhost ip6-localhost ip6-loopback\n";

/// Programs of ours that go by another name too.
const ALIASES: &[(&str, &str)] = &[("coax", "coaxctl")];

/// Writes the base: `members`, `links`, and `applets`, links to the busybox among the members.
///
/// # Errors
///
/// Names the file that could not be read or written.
pub fn write_base(
    path: &Path,
    members: &[Member],
    links: &[Link],
    applets: &[String],
) -> io::Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for folder in FOLDERS {
        archive.directory(folder)?;
    }
    // The kernel opens it for init before anything is mounted.
    archive.character("dev/console", 0o600, (5, 1))?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("etc/hosts", 0o644, HOSTS)?;
    archive.file("etc/profile", 0o644, b"export PS1='coax# '\n")?;
    // Relative, since a guest may have this at another place than its root.
    for applet in applets {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    for (name, program) in ALIASES {
        archive.symlink(&format!("bin/{name}"), program)?;
    }
    for link in links {
        archive.symlink(&link.guest_path, &link.target)?;
    }
    for member in members {
        let contents = fs::read(&member.host_path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{}: {error}", member.host_path.display()),
            )
        })?;
        archive.file(&member.guest_path, member.mode, &contents)?;
    }
    archive.finish()?.into_inner()?.sync_all()
}

/// Copies `base` to an empty file and appends a VM's own part.
///
/// # Errors
///
/// Those of reading the base and of writing the copy.
pub fn with_job(
    base: &Path,
    mut copy: &File,
    job: &JobFile,
    files: &[GuestFile],
) -> io::Result<()> {
    io::copy(&mut File::open(base)?, &mut copy)?;
    let mut archive = Archive::new(BufWriter::new(copy));
    archive.file(JOB_PATH, 0o644, &serde_json::to_vec(job)?)?;
    for file in files {
        archive.file(&file.path, file.mode, &file.contents)?;
    }
    archive.finish()?.flush()
}

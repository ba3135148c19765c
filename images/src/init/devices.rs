// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waits for device files.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Longest wait for a device: it is there in milliseconds or never, but TCG is slow and the
/// host may be busy.
const DEVICE_LIMIT: Duration = Duration::from_secs(20);

/// Waits for the port to the host.
///
/// # Errors
///
/// It did not appear within [`DEVICE_LIMIT`].
pub fn job_port() -> Result<PathBuf> {
    // It is the machine's only port, so its number does not matter.
    wait_for("a virtio-serial port", |name| name.starts_with("vport"))
}

/// Waits for `/dev/NAME`.
///
/// # Errors
///
/// It did not appear within [`DEVICE_LIMIT`].
pub fn named(name: &str) -> Result<PathBuf> {
    wait_for(&format!("/dev/{name}"), |other| other == name)
}

fn wait_for(what: &str, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let start = Instant::now();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .context("Cannot watch /dev")?;
    inotify
        .add_watch("/dev", AddWatchFlags::IN_CREATE)
        .context("Cannot watch /dev")?;
    loop {
        // Looked for after the watch began: what appears from here on wakes the wait below.
        if let Some(path) = find(&is_it)? {
            return Ok(path);
        }
        let left = DEVICE_LIMIT.saturating_sub(start.elapsed());
        if left.is_zero() {
            bail!("{what} did not appear within {DEVICE_LIMIT:?}");
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("Cannot wait for a device"),
        }
        match inotify.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).context("Cannot read what happened in /dev"),
        }
    }
}

fn find(is_it: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir("/dev").context("Cannot read /dev")? {
        let name = entry?.file_name();
        if is_it(&name.to_string_lossy()) {
            return Ok(Some(Path::new("/dev").join(name)));
        }
    }
    Ok(None)
}

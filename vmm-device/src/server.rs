// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Life of the program: one listening socket, one front end, an orderly end.
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use thiserror::Error;
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::backend::Backend;
use crate::device::{Config, Device};

/// Why the server could not start or go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The path of the socket is something else.
    #[error("{0} exists and is no socket")]
    NotASocket(PathBuf),
    /// The path of the socket belongs to a program that runs.
    #[error("{0} is in use by another program")]
    InUse(PathBuf),
    /// The path of the socket cannot be looked at.
    #[error("Cannot look at {path}")]
    Inspect {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("Cannot listen on {path}")]
    Listen {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: VhostUserError,
    },
    /// An event descriptor cannot be set up.
    #[error("Cannot set up events")]
    Events(#[source] io::Error),
    /// The vhost-user protocol failed. The daemon's error is kept as text: it is no
    /// [`std::error::Error`].
    #[error("vhost-user failed: {0}")]
    Daemon(String),
}

impl From<DaemonError> for Error {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(error.to_string())
    }
}

/// Makes the listening socket. A socket that nobody listens on any more is replaced; anything
/// else at the path is left alone.
pub fn listen(path: &Path) -> Result<Listener, Error> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Error::NotASocket(path.to_owned()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(Error::InUse(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Inspect {
                path: path.to_owned(),
                source,
            });
        }
    }
    Listener::new(path, true).map_err(|source| Error::Listen {
        path: path.to_owned(),
        source,
    })
}

/// Serves the first front end that connects, until it disconnects or `stop` has a byte to
/// read. Ends without error in both cases, and before a front end has come as well.
pub fn serve(config: Config, mut listener: Listener, stop: UnixStream) -> Result<(), Error> {
    let device = Arc::new(Device::new(config).map_err(Error::Events)?);
    let backend = Arc::new(Backend::new(Arc::clone(&device)));
    let mut daemon = VhostUserDaemon::new(
        "coax-vhost-user".into(),
        Arc::clone(&backend),
        device.memory.clone(),
    )?;
    backend
        .register_wakers(&daemon.get_epoll_handlers())
        .map_err(Error::Events)?;

    log::info!("listening for a front end");
    if !front_end_came(&listener, &stop).map_err(Error::Events)? {
        return Ok(());
    }
    daemon.start(&mut listener)?;
    log::info!("front end connected");
    if let Some(handle) = daemon.shutdown_handle() {
        thread::spawn(move || {
            // An end of file means that nobody can stop the server this way any more.
            if matches!((&stop).read(&mut [0]), Ok(1)) {
                handle.shutdown();
            }
        });
    }
    let result = daemon.wait();
    // 1. All commands end while the engines still run. 2. The engines leave their loops.
    // 3. Dropping the daemon ends the threads. 4. Dropping the listener removes the socket.
    device.reset();
    device.shut_down();
    drop(daemon);
    log::info!(
        "invalidations answered: {}",
        device.stats.invalidation_times
    );
    match result {
        Ok(()) => Ok(()),
        Err(DaemonError::HandleRequest(
            VhostUserError::Disconnected | VhostUserError::PartialMessage,
        )) => {
            log::info!("front end disconnected");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Waits for a connection; false if asked to stop first.
fn front_end_came(listener: &Listener, stop: &UnixStream) -> io::Result<bool> {
    const STOP: u64 = 1;
    let epoll = Epoll::new()?;
    for (fd, data) in [(listener.as_raw_fd(), 0), (stop.as_raw_fd(), STOP)] {
        epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(EventSet::IN, data),
        )?;
    }
    let mut events = [EpollEvent::default(); 2];
    loop {
        match epoll.wait(-1, &mut events) {
            Ok(count) => {
                return Ok(!events[..count].iter().any(|event| event.data() == STOP));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

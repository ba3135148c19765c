// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the front end comes from: a path, or a descriptor of the parent.
//!
//! Who serves a path holds a lock on the file beside it, `PATH.lock`, from before it looks at the
//! path until it has removed its socket. So of several programs that start at once one serves,
//! and none disturbs another. Programs of other kinds know nothing of the lock; whether one
//! listens is found out without connecting, since a connection would be taken for a front end.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{flock, FlockOperation};
use rustix::net::{sockopt, AddressFamily, SocketType};
use thiserror::Error;

/// Why there is no socket to serve.
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
    /// The lock of the path cannot be taken.
    #[error("Cannot lock {path}, which says who serves the socket beside it")]
    Lock {
        /// Path of the lock.
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
        source: io::Error,
    },
    /// The descriptor of the parent cannot be asked what it is.
    #[error("The descriptor is no socket")]
    NoSocket(#[source] io::Error),
    /// The descriptor of the parent is a socket of another kind.
    #[error("The descriptor is no Unix domain stream socket")]
    WrongKind,
    /// The descriptor of the parent is a socket that neither listens nor is connected.
    #[error("The descriptor is a socket that neither listens nor is connected")]
    Idle(#[source] io::Error),
}

/// Where the front end comes from.
#[derive(Debug)]
pub enum Socket {
    /// It will connect.
    Listening {
        /// Where to.
        listener: UnixListener,
        /// The path of the listener, if it is ours to remove.
        place: Option<Place>,
    },
    /// It is connected.
    Connected(UnixStream),
}

impl Socket {
    /// Makes a socket and listens. A socket that nobody listens on any more is replaced;
    /// anything else at the path is left alone.
    pub fn listen(path: &Path) -> Result<Self, Error> {
        let lock = Lock::take(path)?;
        remove_stale(path)?;
        let listen = |source| Error::Listen {
            path: path.to_owned(),
            source,
        };
        let listener = UnixListener::bind(path).map_err(listen)?;
        let metadata = fs::symlink_metadata(path).map_err(listen)?;
        Ok(Self::Listening {
            listener,
            place: Some(Place {
                path: path.to_owned(),
                identity: identity(&metadata),
                _lock: lock,
            }),
        })
    }

    /// Takes over a socket of the parent, which listens or is connected.
    pub fn adopt(fd: OwnedFd) -> Result<Self, Error> {
        let no_socket = |errno: rustix::io::Errno| Error::NoSocket(errno.into());
        let listening = sockopt::socket_acceptconn(&fd).map_err(no_socket)?;
        if sockopt::socket_domain(&fd).map_err(no_socket)? != AddressFamily::UNIX
            || sockopt::socket_type(&fd).map_err(no_socket)? != SocketType::STREAM
        {
            return Err(Error::WrongKind);
        }
        if listening {
            return Ok(Self::Listening {
                listener: fd.into(),
                place: None,
            });
        }
        let connection = UnixStream::from(fd);
        connection.peer_addr().map_err(Error::Idle)?;
        Ok(Self::Connected(connection))
    }
}

/// What a file is known by, whatever its name.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// A socket in the file system; dropping it removes the file if it still is the one.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    identity: Identity,
    /// Dropped last: until then nobody else makes a socket here.
    _lock: Lock,
}

impl Drop for Place {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|it| identity(&it) == self.identity) {
            // It may be gone by now.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The right to serve a path. The file is removed in the end; one that a killed program left
/// behind is locked by nobody.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, Error> {
        let mut path = OsString::from(socket);
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| Error::Lock {
            path: path.clone(),
            source,
        };
        loop {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::InUse(socket.to_owned()));
                }
                Err(errno) => return Err(failed(errno.into())),
            }
            // Its owner may have removed the file after it was opened here.
            let ours = identity(&file.metadata().map_err(failed)?);
            if fs::symlink_metadata(&path).is_ok_and(|it| identity(&it) == ours) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked, so that nobody else's is removed.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let inspect = |source| Error::Inspect {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(Error::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(inspect(source)),
    }
    // A stream socket that is alive refuses a datagram one by its type, before it notices.
    let probe = UnixDatagram::unbound().map_err(inspect)?;
    match probe.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(inspect)
        }
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => Err(inspect(error)),
        _ => Err(Error::InUse(path.to_owned())),
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Life of the program: one socket, one front end, an orderly end.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::event::PollFlags;
use thiserror::Error;
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};

use crate::deviations::Deviations;
use crate::device::{Config, Device};
use crate::fail_stop;
use crate::relay::{self, End, Stop};
use crate::services::pcie::Served;
use crate::socket::Socket;
use crate::sync::{lock, wait_until};
use crate::transport::vhost_user::Backend;

/// Longest time that the device's threads may take to end: they look after every step.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why the server could not start or go on.
#[derive(Debug, Error)]
pub enum Error {
    /// An event descriptor cannot be set up.
    #[error("Cannot set up events")]
    Events(#[source] io::Error),
    /// The connection to the front end failed.
    #[error("Cannot serve the front end")]
    Connection(#[from] io::Error),
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

/// Serves one front end until it disconnects or `stop` has a byte to read. Ends without error
/// in both cases, and before a front end has come as well. Others that connect are refused.
///
/// When the front end sees the end of its connection, the device accesses memory no more.
///
/// `pcie` is where the front end passes on translation by the guest's IOMMU.
pub fn serve(
    config: Config,
    socket: Socket,
    pcie: Option<Socket>,
    stop: UnixStream,
) -> Result<(), Error> {
    serve_deviating(config, Deviations::default(), socket, pcie, stop)
}

/// The same by a device that deviates from the specification.
pub fn serve_deviating(
    config: Config,
    deviations: Deviations,
    socket: Socket,
    pcie: Option<Socket>,
    stop: UnixStream,
) -> Result<(), Error> {
    let device = Arc::new(Device::new(config, deviations).map_err(Error::Events)?);
    let backend = Arc::new(Backend::new(Arc::clone(&device)));
    let mut daemon = VhostUserDaemon::new(
        "coax-vhost-user".into(),
        Arc::clone(&backend),
        device.machine.outside.memory.clone(),
    )?;
    backend
        .register_wakers(&daemon.get_epoll_handlers())
        .map_err(Error::Events)?;
    let pcie = pcie
        .map(|socket| Served::begin(&device, socket))
        .transpose()?;
    let mut stop = Stop::new(stop);
    let (listener, front_end, _place) = match socket {
        Socket::Connected(front_end) => (None, Some(front_end), None),
        Socket::Listening { listener, place } => {
            log::info!("listening for a front end");
            let front_end = wait_for_front_end(&listener, &mut stop)?;
            (Some(listener), front_end, place)
        }
    };
    let result = match &front_end {
        Some(front_end) => converse(&mut daemon, front_end, listener.as_ref(), &mut stop),
        None => Ok(()),
    };
    // 1. No message of the front end arrives any more: the daemon's connection has ended.
    // 2. Engines and queues stop at their next step, and those who wait for an engine go on.
    // 3. Dropping the daemon ends the threads. 4. The front end sees the end. 5. The socket is
    // removed. If one of these hangs the process ends, and with it all of them.
    let ended = limit_the_end();
    backend.quiesce();
    drop(pcie);
    drop(daemon);
    log::info!(
        "invalidations answered: {}",
        device.machine.outside.stats.invalidation_times
    );
    drop(front_end);
    ended();
    result
}

/// Ends the process unless the returned function is called within [`END_LIMIT`].
fn limit_the_end() -> impl FnOnce() {
    let ended = Arc::new((Mutex::new(false), Condvar::new()));
    let seen = Arc::clone(&ended);
    thread::spawn(move || {
        let (mutex, condvar) = &*seen;
        if !wait_until(condvar, mutex, END_LIMIT, |&ended| ended) {
            fail_stop::end_process(format_args!(
                "the device's threads do not end within {END_LIMIT:?}"
            ));
        }
    });
    move || {
        *lock(&ended.0) = true;
        ended.1.notify_all();
    }
}

/// Waits for a connection; none if asked to stop first.
fn wait_for_front_end(listener: &UnixListener, stop: &mut Stop) -> io::Result<Option<UnixStream>> {
    match stop.wait([(listener.as_fd(), PollFlags::IN)])? {
        Some(_) => Ok(Some(listener.accept()?.0)),
        None => Ok(None),
    }
}

/// Has the daemon serve the front end until one of them ends or `stop` says so.
fn converse(
    daemon: &mut VhostUserDaemon<Arc<Backend>>,
    front_end: &UnixStream,
    listener: Option<&UnixListener>,
    stop: &mut Stop,
) -> Result<(), Error> {
    let inner = relay::connect_daemon(|listener| daemon.start(listener).map_err(Error::from))?;
    log::info!("front end connected");
    let end = relay::run(front_end, &inner, listener, stop, |_| {
        log::warn!("another front end is refused: the device serves one");
    });
    drop(inner);
    let result = daemon.wait();
    match end? {
        End::Asked => Ok(()),
        End::FrontEnd => {
            log::info!("front end disconnected");
            Ok(())
        }
        End::Daemon => match result {
            Ok(()) => Err(Error::Daemon("the daemon closed its socket".into())),
            Err(error) => Err(error.into()),
        },
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vhost-device-coax`: options, log, signals and exit status.
// UNSAFETY: taking over the file descriptor that the parent passed with `--fd`.
#![expect(unsafe_code)]

use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;

use anyhow::{bail, ensure, Context};
use clap::Parser;
use log::LevelFilter;
use vhost::vhost_user::Listener;
use vhost_device_coax::args::Args;
use vhost_device_coax::server;

fn main() -> ExitCode {
    // Other options are to be ignored then, even those that make no sense.
    if std::env::args_os().any(|arg| arg == "--print-capabilities") {
        println!("{}", serde_json::json!({ "type": "coax", "features": [] }));
        return ExitCode::SUCCESS;
    }
    // Usage errors end the program here, with status 2.
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-device-coax: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    start_log(args.verbose);
    // First of all that opens descriptors, so that the number cannot name one of ours.
    let adopted = args.fd.map(adopt).transpose()?;
    // Signals are caught before the socket exists, so that none leaves it behind.
    let (stop, raise) = UnixStream::pair().context("Cannot make a socket pair")?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let raise = raise.try_clone().context("Cannot copy a descriptor")?;
        signal_hook::low_level::pipe::register(signal, raise)
            .with_context(|| format!("Cannot catch signal {signal}"))?;
    }
    let listener = match (adopted, &args.socket_path) {
        (Some(listener), _) => listener,
        (None, Some(path)) => server::listen(path)?,
        (None, None) => bail!("Neither a path nor a descriptor to listen on"),
    };
    Ok(server::serve(args.config(), listener, stop)?)
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        // It logs guest mistakes without a limit; ours are reported by the device.
        .filter_module("virtio_queue", LevelFilter::Off)
        // With the colons, since names are compared by their beginnings and ours begins so too.
        .filter_module("vhost::", LevelFilter::Warn)
        .filter_module("vhost_user_backend", LevelFilter::Warn)
        .init();
}

/// Takes over a listening socket of the parent.
fn adopt(fd: RawFd) -> anyhow::Result<Listener> {
    // Standard input may be a socket, as from a service manager; the others are written to.
    ensure!(
        fd >= 0 && fd != libc::STDOUT_FILENO && fd != libc::STDERR_FILENO,
        "Descriptor {fd} is an output stream"
    );
    let mut listening: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY:
    // - `listening` is a writable integer of `size` bytes, and `size` a writable length; both
    //   outlive the call.
    // - Any descriptor number may be asked about; a bad one is an error.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            std::ptr::from_mut(&mut listening).cast(),
            &mut size,
        )
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(error).with_context(|| format!("Cannot use descriptor {fd}"));
    }
    ensure!(listening != 0, "Descriptor {fd} is no listening socket");
    // SAFETY:
    // - The descriptor is open: `getsockopt` accepted it.
    // - Nothing else in the process owns it: the parent passed it for this purpose, and the
    //   program has opened no socket yet.
    let socket = unsafe { UnixListener::from_raw_fd(fd) };
    socket
        .local_addr()
        .with_context(|| format!("Descriptor {fd} is no Unix domain socket"))?;
    Ok(Listener::from(socket))
}

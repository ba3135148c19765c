// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vhost-device-coax`: options, log, signals and exit status.
// UNSAFETY: taking over the file descriptor that the parent passed with `--fd`.
#![expect(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{bail, ensure, Context};
use coax_program::{outln, signals, status};
use env_logger::Target;
use log::LevelFilter;
use vhost_device_coax::args::Args;
use vhost_device_coax::error_output::{write_line, ErrorOutput};
use vhost_device_coax::socket::Socket;
use vhost_device_coax::{fail_stop, server};

/// Before what it has to say on standard error.
const NAME: &str = "vhost-device-coax";

fn main() -> ExitCode {
    // Other options are to be ignored then, even those that make no sense.
    if std::env::args_os().any(|arg| arg == "--print-capabilities") {
        let capabilities = serde_json::json!({ "type": "coax", "features": [] });
        let told = outln!("{capabilities}").map(|()| ExitCode::SUCCESS);
        return coax_program::finish(NAME, told.map_err(Into::into));
    }
    let ran = coax_program::parse(NAME).map(|args: Args| run(&args));
    match ran {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            // Unlike `finish` this waits for nobody: whoever reads the log may be stuck.
            write_line(format_args!("{NAME}: {error:#}"));
            ExitCode::from(status::FAILED)
        }
        Err(status) => status,
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    fail_stop::end_process_on_panic();
    start_log(args);
    // First of all that opens descriptors, so that the number cannot name one of ours.
    let adopted = args.fd.map(adopt).transpose()?;
    let pcie_adopted = args.pcie_fd.map(adopt).transpose()?;
    leave_guest_memory_out_of_core_dumps();
    // Signals are caught before the socket exists, so that none leaves it behind.
    let (stop, raise) = UnixStream::pair().context("Cannot make a socket pair")?;
    for signal in signals::that_end() {
        let raise = raise.try_clone().context("Cannot copy a descriptor")?;
        signal_hook::low_level::pipe::register(signal as i32, raise)
            .with_context(|| format!("Cannot catch {signal}"))?;
    }
    let socket = match (adopted, &args.socket_path) {
        (Some(socket), _) => socket,
        (None, Some(path)) => Socket::listen(path)?,
        (None, None) => bail!("Neither a path nor a descriptor to serve"),
    };
    let pcie = match (pcie_adopted, &args.pcie_socket) {
        (Some(socket), _) => Some(socket),
        (None, Some(path)) => Some(Socket::listen(path)?),
        (None, None) => None,
    };
    Ok(server::serve(args.config(), socket, pcie, stop)?)
}

fn start_log(args: &Args) {
    let level = match args.verbose {
        0 if args.quiet => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .target(Target::Pipe(Box::new(ErrorOutput)))
        .filter_level(level)
        // It logs guest mistakes without a limit; ours are reported by the device.
        .filter_module("virtio_queue", LevelFilter::Off)
        // With the colons, since names are compared by their beginnings and ours begins so too.
        .filter_module("vhost::", LevelFilter::Warn)
        .filter_module("vhost_user_backend", LevelFilter::Warn)
        .init();
}

/// Takes over a socket of the parent.
fn adopt(fd: RawFd) -> anyhow::Result<Socket> {
    // Standard input may be a socket, as from a service manager; the others are written to.
    ensure!(
        fd >= 0 && fd != libc::STDOUT_FILENO && fd != libc::STDERR_FILENO,
        "Descriptor {fd} is an output stream"
    );
    // SAFETY:
    // - Any descriptor number may be asked about; a bad one is an error.
    let result = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(error).with_context(|| format!("Cannot use descriptor {fd}"));
    }
    // SAFETY:
    // - The descriptor is open: `fcntl` accepted it.
    // - Nothing else in the process owns it: the parent passed it for this purpose, and the
    //   program has opened no descriptor that it keeps yet.
    let fd_owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Socket::adopt(fd_owned).with_context(|| format!("Cannot use descriptor {fd}"))
}

/// A core dump of this process is for finding its own defects; what it shares is the guest's.
fn leave_guest_memory_out_of_core_dumps() {
    /// Shared memory of each kind in core(5): anonymous, of files, of huge pages, and DAX.
    const SHARED: u32 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 8;
    const FILTER: &str = "/proc/self/coredump_filter";
    let filtered = std::fs::read_to_string(FILTER).and_then(|text| {
        let filter = u32::from_str_radix(text.trim(), 16).map_err(std::io::Error::other)?;
        std::fs::write(FILTER, format!("{:#x}", filter & !SHARED))
    });
    if let Err(error) = filtered {
        log::warn!("a core dump would hold the guest's memory: {FILTER}: {error}");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax qemu-args`.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::QemuArgs;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::launch::{foreign, Place, VmConfig};
use coax_program::{errln, outln};

/// Prints the options to standard output, as words of a shell, and to standard error what goes with them.
pub fn run(options: &QemuArgs) -> Result<ExitCode> {
    let images = Images::built(&options.kernel.which)?;
    let config = VmConfig {
        devices: options.devices,
        device_memory: options.device_memory,
        mode: if options.node {
            Mode::Numa
        } else {
            Mode::Coherent
        },
        ..VmConfig::default()
    };
    let socket = |place: Place| {
        options
            .sockets
            .join(format!("{}.sock", place.connection_id()))
    };
    errln!("Start first:");
    for number in 0..config.devices as usize {
        let listen = [
            "--socket-path".into(),
            socket(Place::first(number)).into_os_string(),
        ];
        errln!("  {} &", foreign::shell_line(Some(&images.device), &listen));
    }
    errln!(
        "The QEMU that these options are for is {}; it must have -machine q35, two virtual CPUs or more, and memory \
         with share=on",
        images.qemu.display()
    );
    let words = foreign::options(&config, images.form, |place| {
        place.connection(&socket(place))
    });
    outln!("{}", foreign::shell_line(None, &words))?;
    Ok(ExitCode::SUCCESS)
}

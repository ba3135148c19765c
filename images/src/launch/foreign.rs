// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The devices as options for a QEMU that others start: its guest, and all else of it, are theirs.

use std::ffi::OsString;
use std::path::Path;

use super::config::VmConfig;
use super::device::Place;
use super::qemu_args::{self, Ports, Words};
use crate::qemu::Form;

/// The options that add the devices of `config`; `connection` is the character device of each, whose identifier is
/// [`Place::connection_id`].
///
/// The machine must be a q35, and the guest's memory be shared with other processes. In numa mode the machine must
/// have a node 0, and no others.
pub fn options(
    config: &VmConfig,
    form: Form,
    connection: impl Fn(Place) -> String,
) -> Vec<OsString> {
    let mut words = Words::default();
    for number in 0..config.devices as usize {
        let place = Place::first(number);
        words.accelerator(config, form, place, &connection(place), Ports::OutOfTheWay);
    }
    words.0
}

/// A command line that a shell takes as it is, or words for one.
pub fn shell_line(program: Option<&Path>, args: &[OsString]) -> String {
    match (program, args.split_first()) {
        (Some(program), _) => qemu_args::shell_line(program, args),
        (None, Some((first, rest))) => qemu_args::shell_line(first.as_ref(), rest),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Mode;
    use crate::launch::qemu_args::socket_chardev;

    fn line(config: &VmConfig) -> String {
        let of = |place: Place| socket_chardev(&place.connection_id(), "/s".as_ref());
        let words = options(config, Form::OneFunction, of);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn ports_are_where_nobody_else_puts_any() {
        let config = VmConfig {
            devices: 2,
            ..VmConfig::default()
        };
        let line = line(&config);
        for text in [
            "pcie-root-port,id=coax-rp0,bus=pcie.0,addr=0x1e.0,multifunction=on,chassis=240,slot=240",
            "pcie-root-port,id=coax-rp1,bus=pcie.0,addr=0x1e.1,multifunction=on,chassis=241,slot=241",
            "chardev=coax1,memdev=devmem1,bus=coax-rp1,",
        ] {
            assert!(line.contains(text), "no {text} in {line}");
        }
    }

    #[test]
    fn a_device_with_a_node_has_a_host_bridge_of_its_own() {
        let config = VmConfig {
            mode: Mode::Numa,
            ..VmConfig::default()
        };
        let line = line(&config);
        for text in [
            "-numa node,nodeid=1 ",
            "pcie-root-port,id=coax-rp0,bus=host0,chassis=240,slot=240",
        ] {
            assert!(line.contains(text), "no {text} in {line}");
        }
    }
}

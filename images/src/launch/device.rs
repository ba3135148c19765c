// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device as QEMU's options and its monitor's commands have it.

use std::path::Path;

use coax_abi::wire;

use super::config::VmConfig;
use super::qemu_args::socket_chardev;
use crate::qemu::Form;

/// A device: whose place it has, and the how many-th it is that was plugged in there.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// From 0 on, in the order of the ports.
    pub number: usize,
    /// 0 for the one that is there from the start.
    pub plugged: u32,
}

impl Place {
    /// The place of a device that is there from the start.
    pub fn first(number: usize) -> Self {
        Place { number, plugged: 0 }
    }

    /// What QEMU knows the device by.
    pub fn id(self) -> String {
        format!("accelerator{}", self.number)
    }

    /// What it knows the port by.
    pub fn port_id(self) -> String {
        format!("coax-rp{}", self.number)
    }

    /// What it knows the connection to the back end by.
    pub fn connection_id(self) -> String {
        self.numbered("coax")
    }

    /// What it knows the connection by which the IOMMU translates for the device.
    pub fn translation_id(self) -> String {
        self.numbered("pcie")
    }

    /// Where the back end listens for that, in the VM's folder.
    pub fn translation_socket(self) -> String {
        format!("device-{}-pcie.sock", self.number)
    }

    /// What it knows the memory by.
    pub fn memory_id(self) -> String {
        self.numbered("devmem")
    }

    fn numbered(self, what: &str) -> String {
        match self.plugged {
            0 => format!("{what}{}", self.number),
            plugged => format!("{what}{}-{plugged}", self.number),
        }
    }

    /// The connection to the back end.
    pub fn connection(self, socket: &Path) -> String {
        socket_chardev(&self.connection_id(), socket)
    }

    /// The memory. It is shared, so that the back end can have it.
    pub fn memory(self, config: &VmConfig) -> String {
        format!(
            "memory-backend-memfd,id={},size={},share=on",
            self.memory_id(),
            config.device_memory
        )
    }

    /// The PCI functions that the device is, with their properties; the guest sees a slot when function 0
    /// comes, which is the last.
    pub fn functions(self, config: &VmConfig, form: Form) -> Vec<String> {
        let (id, port) = (self.id(), self.port_id());
        let (connection, memory) = (self.connection_id(), self.memory_id());
        match form {
            Form::OneFunction => vec![format!(
                "vhost-user-coax-pci,id={id},chardev={connection},memdev={memory},bus={port},command-queues={}",
                config.engines
            )],
            // Linux gives up the functions of a slot from the last to the first: the driver, which has the
            // device, still has the memory when it takes its leave.
            Form::TwoFunctions => vec![
                format!(
                    "vhost-user-test-device-pci,id={id},chardev={connection},bus={port},addr=0.1,\
                     virtio-id={},num_vqs={},vq_size={},config_size={}",
                    wire::VIRTIO_ID_BORROWED,
                    wire::queue_count(config.engines),
                    config.queue_size,
                    size_of::<wire::Config>()
                ),
                format!(
                    "ivshmem-plain,id={id}-memory,memdev={memory},bus={port},addr=0.0,multifunction=on"
                ),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_functions_of_a_slot_are_a_device_and_its_memory() {
        let config = VmConfig {
            engines: 3,
            queue_size: 8,
            ..VmConfig::default()
        };
        let place = Place {
            number: 1,
            plugged: 2,
        };
        let [device, memory]: [String; 2] = place
            .functions(&config, Form::TwoFunctions)
            .try_into()
            .expect("two functions");
        let has = |line: &str, text: &str| line.split(',').any(|word| word == text);
        for text in [
            "id=accelerator1",
            "chardev=coax1-2",
            "bus=coax-rp1",
            "addr=0.1",
            "num_vqs=7",
            "vq_size=8",
        ] {
            assert!(has(&device, text), "no {text} in {device}");
        }
        for text in [
            "memdev=devmem1-2",
            "bus=coax-rp1",
            "addr=0.0",
            "multifunction=on",
        ] {
            assert!(has(&memory, text), "no {text} in {memory}");
        }
        let backend = place.memory(&config);
        assert!(
            has(&backend, "id=devmem1-2") && has(&backend, "share=on"),
            "{backend}"
        );
        let [whole]: [String; 1] = Place::first(0)
            .functions(&config, Form::OneFunction)
            .try_into()
            .expect("one function");
        assert!(
            has(&whole, "memdev=devmem0") && has(&whole, "command-queues=3"),
            "{whole}"
        );
    }
}

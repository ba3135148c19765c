// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the environment says about the devices: whoever calls this program has no option for it.

use std::env::VarError;

use coax_images::job::Mode;
use coax_images::launch::{Bytes, VmConfig};

/// Ports that fit in one slot.
const MAX_DEVICES: u32 = 8;

/// The variables, and what they say.
pub const HELP: &str = "COAX_DEVICES (1; with 0 this is QEMU and nothing else), COAX_DEVICE_MEMORY (512M), \
                        COAX_ENGINES (2), COAX_NODE (0; with 1 device memory is a memory node), COAX_QEMU, COAX_BACK_END";

/// The devices that are wanted, read by `variable`.
///
/// # Errors
///
/// A variable has a value that it cannot have: one line that says which it can.
pub fn read(variable: impl Fn(&str) -> Result<String, VarError>) -> Result<VmConfig, String> {
    let number = |name: &str, usual: u32, most: u32, least: u32| match variable(name) {
        Err(VarError::NotPresent) => Ok(usual),
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is no text")),
        Ok(text) => match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name}={text} is no number from {least} to {most}")),
        },
    };
    let usual = VmConfig::default();
    let device_memory = match variable("COAX_DEVICE_MEMORY") {
        Err(VarError::NotPresent) => usual.device_memory,
        Err(VarError::NotUnicode(_)) => return Err("COAX_DEVICE_MEMORY is no text".into()),
        Ok(text) => {
            let bytes: Bytes = text
                .parse()
                .map_err(|error| format!("COAX_DEVICE_MEMORY={text}: {error}"))?;
            if !bytes.0.is_power_of_two() || bytes < Bytes::mib(128) {
                return Err(format!(
                    "COAX_DEVICE_MEMORY={text} is no power of two from 128M on, which the size of a PCI range must be"
                ));
            }
            bytes
        }
    };
    let engines = number("COAX_ENGINES", usual.engines.into(), 16, 1)?;
    Ok(VmConfig {
        devices: number("COAX_DEVICES", 1, MAX_DEVICES, 0)?,
        device_memory,
        engines: u16::try_from(engines).map_err(|error| error.to_string())?,
        mode: match number("COAX_NODE", 0, 1, 0)? {
            1 => Mode::Numa,
            _ => usual.mode,
        },
        ..usual
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(name: &str, value: &str) -> Result<VmConfig, String> {
        read(|asked| match asked == name {
            true => Ok(value.to_owned()),
            false => Err(VarError::NotPresent),
        })
    }

    #[test]
    fn without_a_word_there_is_one_device() {
        let config = read(|_| Err(VarError::NotPresent)).expect("defaults");
        assert_eq!((config.devices, config.engines), (1, 2));
        assert_eq!(config.device_memory, Bytes::mib(512));
    }

    #[test]
    fn values_are_taken_and_bad_ones_named() {
        let memory = read_with("COAX_DEVICE_MEMORY", "1G").expect("a size");
        assert_eq!(memory.device_memory, Bytes::gib(1));
        assert_eq!(
            read_with("COAX_NODE", "1").expect("a mode").mode,
            Mode::Numa
        );
        for (name, value) in [
            ("COAX_DEVICES", "9"),
            ("COAX_DEVICES", "one"),
            ("COAX_ENGINES", "0"),
            ("COAX_DEVICE_MEMORY", "100M"),
            ("COAX_DEVICE_MEMORY", "much"),
            ("COAX_NODE", "yes"),
        ] {
            let error = read_with(name, value).expect_err(value);
            assert!(error.contains(&format!("{name}={value}")), "{error}");
        }
    }
}

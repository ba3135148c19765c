// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMUs: which one is meant, and how it shows the device to the guest.
//!
//! A command line names a QEMU by [`Which`]; a [`Qemu`] is what comes of it. There are two makers, and nobody
//! else asks where a QEMU is from:
//!
//! | named by | maker | device |
//! |---|---|---|
//! | `--qemu ours` | `own`: Debian's source with the patches of `qemu-patches` | [`Form::OneFunction`] |
//! | `--qemu stock`, `--qemu PATH` | `stock`: a program as it is, asked what it can | [`Form::OneFunction`] if it has our patches, else [`Form::TwoFunctions`] |

mod own;
mod stock;

use std::ffi::OsStr;
use std::path::{self, PathBuf};

use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::{Deserialize, Serialize};

/// Name of the program.
const PROGRAM: &str = "qemu-system-x86_64";

/// How a QEMU shows the device to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// As `vhost-user-coax-pci`, which our patches add: a PCI function with a BAR that is the device memory.
    #[default]
    OneFunction,
    /// As two functions of one slot, which an unpatched QEMU has: `vhost-user-test-device-pci` is the device,
    /// `ivshmem-plain` its memory.
    TwoFunctions,
}

impl Form {
    /// As reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Form::OneFunction => "one function",
            Form::TwoFunctions => "two functions",
        }
    }
}

/// A QEMU that can run VMs with the device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Qemu {
    /// As options and reports name it: a word, or its path.
    #[serde(skip)]
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: String,
    /// Folders for `-L`, if it does not find its firmware by itself.
    pub firmware: Vec<PathBuf>,
    /// How it shows the device.
    #[serde(default)]
    pub form: Form,
    /// Seconds that the build took here.
    pub seconds: f64,
}

/// Which QEMU is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that is built here.
    #[default]
    Ours,
    /// The first in `PATH`.
    Stock,
    /// This program.
    Program(PathBuf),
}

/// Which QEMU is meant, as an option.
#[derive(clap::Args, Clone, Debug, Default)]
// Groups have the names of their structures, and this is not the only one of its name.
#[group(skip)]
pub struct Which {
    /// QEMU that runs the VM: `ours`, built here with patches; `stock`, the qemu-system-x86_64 in PATH; or a
    /// program. Without our patches, from version 11.1 on, it has the device in another form: images/README.md
    /// says what is lost
    #[arg(long, value_name = "ours|stock|PROGRAM", default_value = "ours",
          value_parser = OsStringValueParser::new().try_map(|word| parse(&word)))]
    pub qemu: Choice,
}

/// `ours`, `stock`, or a file.
fn parse(word: &OsStr) -> Result<Choice, String> {
    match word.to_str() {
        Some("ours") => return Ok(Choice::Ours),
        Some("stock") => return Ok(Choice::Stock),
        _ => {}
    }
    let program = path::absolute(word).map_err(|error| error.to_string())?;
    if program.is_file() {
        return Ok(Choice::Program(program));
    }
    Err("is neither `ours` nor `stock` nor a program's file".into())
}

impl Which {
    /// The words that name this QEMU on a command line.
    pub fn words(&self) -> [&OsStr; 2] {
        ["--qemu".as_ref(), self.word()]
    }

    fn word(&self) -> &OsStr {
        match &self.qemu {
            Choice::Ours => "ours".as_ref(),
            Choice::Stock => "stock".as_ref(),
            Choice::Program(program) => program.as_os_str(),
        }
    }

    /// This QEMU by its name.
    fn named(&self, qemu: Qemu) -> Qemu {
        Qemu {
            name: self.word().to_string_lossy().into_owned(),
            ..qemu
        }
    }

    /// The QEMU as it is there.
    ///
    /// # Errors
    ///
    /// It is not built, or is one that cannot do; says what to do, or what it lacks.
    pub fn built(&self) -> Result<Qemu> {
        let qemu = match &self.qemu {
            Choice::Ours => own::built(),
            Choice::Stock => stock::in_path(),
            Choice::Program(program) => stock::open(program),
        };
        Ok(self.named(qemu?))
    }

    /// Refuses one that cannot do, before anything is built or waited for.
    ///
    /// # Errors
    ///
    /// Those of [`Which::built`], of one that is not ours.
    pub fn check(&self) -> Result<()> {
        match &self.qemu {
            Choice::Ours => Ok(()),
            Choice::Stock | Choice::Program(_) => self.built().map(drop),
        }
    }

    /// Builds what is missing of ours; packages are installed if `install` says so. Another is as it is.
    ///
    /// # Errors
    ///
    /// Says which step failed and where its log is, or those of [`Which::built`].
    pub fn build(&self, install: bool) -> Result<Qemu> {
        match &self.qemu {
            Choice::Ours => Ok(self.named(own::build(install)?)),
            Choice::Stock | Choice::Program(_) => self.built(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_named_by_a_word_or_a_file() {
        assert_eq!(parse("ours".as_ref()), Ok(Choice::Ours));
        assert_eq!(parse("stock".as_ref()), Ok(Choice::Stock));
        let file = path::absolute("Cargo.toml").expect("a current folder");
        assert_eq!(
            parse("Cargo.toml".as_ref()),
            Ok(Choice::Program(file.clone()))
        );
        for word in ["", "theirs", "/nowhere/at-all", "src"] {
            parse(word.as_ref()).expect_err(word);
        }
        // What a command line was told it tells another program.
        let qemu = Choice::Program(file);
        let which = Which { qemu: qemu.clone() };
        assert_eq!(parse(which.words()[1]), Ok(qemu));
    }
}

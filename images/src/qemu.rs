// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMUs: which one is meant, and how it shows the device to the guest.
//!
//! A command line names a QEMU by [`Which`]; a [`Qemu`] is what comes of it. There are three makers, and nobody
//! else asks where a QEMU is from:
//!
//! | named by | maker | device |
//! |---|---|---|
//! | `--qemu ours` | `own`: Debian's source with the patches of `qemu-patches` | [`Form::OneFunction`] |
//! | `--qemu debian` | `debian`: Debian's packages, in a folder of ours | [`Form::TwoFunctions`] |
//! | `--qemu stock`, `--qemu PATH` | `stock`: a program as it is, asked what it can | [`Form::OneFunction`] if it has our patches, else [`Form::TwoFunctions`] |

mod debian;
mod own;
mod stock;

pub use stock::{options_of, WHOLE_DEVICE};

use std::ffi::{OsStr, OsString};
use std::path::{self, PathBuf};

use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::{Deserialize, Serialize};

use crate::host_packages::Group;
use crate::progress::Expected;

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
    /// Debian's, out of its packages.
    Debian,
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
    /// QEMU that runs the VM: `ours`, built here with patches; `debian`, fetched in Debian's packages, of which
    /// none is installed; `stock`, the qemu-system-x86_64 in PATH, or what `debian` fetched; or a program.
    /// Without our patches, from version 11.1 on, it has the device in another form: images/README.md says
    /// what is lost [default: ours; of `demo`: what is soonest ready]
    #[arg(long, value_name = "ours|debian|stock|PROGRAM",
          value_parser = OsStringValueParser::new().try_map(|word| parse(&word)))]
    pub qemu: Option<Choice>,
}

/// `ours`, `debian`, `stock`, or a file.
fn parse(word: &OsStr) -> Result<Choice, String> {
    match word.to_str() {
        Some("ours") => return Ok(Choice::Ours),
        Some(debian::NAME) => return Ok(Choice::Debian),
        Some("stock") => return Ok(Choice::Stock),
        _ => {}
    }
    let program = path::absolute(word).map_err(|error| error.to_string())?;
    if program.is_file() {
        return Ok(Choice::Program(program));
    }
    Err("is neither `ours` nor `debian` nor `stock` nor a program's file".into())
}

impl Choice {
    /// As options and reports name it.
    pub fn name(&self) -> &OsStr {
        match self {
            Choice::Ours => "ours".as_ref(),
            Choice::Debian => debian::NAME.as_ref(),
            Choice::Stock => "stock".as_ref(),
            Choice::Program(program) => program.as_os_str(),
        }
    }

    /// This QEMU by its name.
    fn named(&self, qemu: Qemu) -> Qemu {
        Qemu {
            name: self.name().to_string_lossy().into_owned(),
            ..qemu
        }
    }

    /// The QEMU as it is there.
    ///
    /// # Errors
    ///
    /// It is not built, or is one that cannot do; says what to do, or what it lacks.
    pub fn built(&self) -> Result<Qemu> {
        let qemu = match self {
            Choice::Ours => own::built(),
            Choice::Debian => debian::built(),
            Choice::Stock => match (stock::in_path(), Choice::Debian.built()) {
                (Err(_), Ok(qemu)) => return Ok(qemu),
                (found, _) => found,
            },
            Choice::Program(program) => stock::open(program),
        };
        Ok(self.named(qemu?))
    }

    /// Builds or fetches what is missing; packages are installed if `install` says so. One of the user's is as
    /// it is.
    ///
    /// # Errors
    ///
    /// Says which step failed and where its log is, or those of [`Choice::built`].
    pub fn build(&self, install: bool) -> Result<Qemu> {
        match self {
            Choice::Ours => Ok(self.named(own::build(install)?)),
            Choice::Debian => Ok(self.named(debian::build()?)),
            Choice::Stock | Choice::Program(_) => self.built(),
        }
    }
}

impl Which {
    /// The one meant.
    pub fn choice(&self) -> Choice {
        self.qemu.clone().unwrap_or_default()
    }

    /// The words that name this QEMU on a command line.
    pub fn words(&self) -> [OsString; 2] {
        ["--qemu".into(), self.choice().name().to_owned()]
    }

    /// The QEMU as it is there.
    ///
    /// # Errors
    ///
    /// Those of [`Choice::built`].
    pub fn built(&self) -> Result<Qemu> {
        self.choice().built()
    }

    /// Refuses one that cannot do, before anything is built or waited for.
    ///
    /// # Errors
    ///
    /// Those of [`Which::built`], of one of the user's.
    pub fn check(&self) -> Result<()> {
        match self.choice() {
            Choice::Ours | Choice::Debian => Ok(()),
            Choice::Stock | Choice::Program(_) => self.built().map(drop),
        }
    }

    /// Packages of the host that building it takes.
    pub fn packages(&self) -> Vec<Group> {
        match self.choice() {
            Choice::Ours if own::built().is_err() => vec![Group::Qemu],
            _ => Vec::new(),
        }
    }

    /// What is still to be done, as it was measured.
    pub fn expected(&self) -> Vec<Expected> {
        match self.choice() {
            Choice::Ours if own::built().is_err() => own::EXPECTED.to_vec(),
            Choice::Debian if debian::built().is_err() => debian::EXPECTED.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Builds or fetches what is missing.
    ///
    /// # Errors
    ///
    /// Those of [`Choice::build`].
    pub fn build(&self, install: bool) -> Result<Qemu> {
        self.choice().build(install)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_named_by_a_word_or_a_file() {
        assert_eq!(parse("ours".as_ref()), Ok(Choice::Ours));
        assert_eq!(parse("stock".as_ref()), Ok(Choice::Stock));
        assert_eq!(parse("debian".as_ref()), Ok(Choice::Debian));
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
        let which = Which {
            qemu: Some(qemu.clone()),
        };
        assert_eq!(parse(&which.words()[1]), Ok(qemu));
        assert_eq!(Which::default().words()[1], "ours");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest kernels: which one is meant, and what everything else has to know of it.
//!
//! A command line names a kernel by [`Which`]; a [`Kernel`] is what comes of it: an image to boot, a folder
//! to build modules against and a source to take tests from, with the compilers, the configuration and the
//! key of all that is built for it. There are three makers, and nobody else asks where a kernel is from:
//!
//! | named by | maker | source and configuration | compilers | key |
//! |---|---|---|---|---|
//! | `--kernel KIND` | `own` | Debian's source, `kernel/*.config` | this machine's | of all of these |
//! | `--kernel debian` | `debian` | as Debian built it; only Rust metadata is built again | Debian's | its version |
//! | `--kernel-tree DIR` | [`tree`] | as they are in DIR, which is only read | those that built DIR | of what DIR's build left |
//!
//! What a tree must have is in the fragments' comments ([`config`]); [`merge`] writes it into a tree when the
//! user asks for that, and only then.

pub mod config;
pub(crate) mod debian;
mod kind;
pub mod merge;
mod named;
pub(crate) mod own;
mod source;
pub mod tree;
mod variant;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result};
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::cache;
use crate::debian::root::Root;
use crate::host_packages::Group;
use crate::progress::Expected;
use crate::tool;
use config::Config;

pub use kind::{Kind, Version};
pub use named::Named;
pub use variant::Variant;

/// A kernel to boot and to build modules against.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As options and reports name it: the kind, or the tree's folder.
    pub name: String,
    /// What QEMU boots.
    pub image: PathBuf,
    /// The kernel as an ELF file with symbols.
    pub vmlinux: PathBuf,
    /// The build tree, for modules.
    pub build_dir: PathBuf,
    /// The source that was built.
    pub source: PathBuf,
    /// A folder of ours for the modules that are built against it.
    pub driver_dir: PathBuf,
    /// As `uname -r` shows it.
    pub version: String,
    /// Name of this build.
    pub key: String,
    /// Seconds that the build took here.
    pub seconds: f64,
    /// What a make against the build tree has to be told: the compilers.
    pub make_variables: Vec<String>,
    /// The root file system that has these compilers, where this machine has not.
    pub compilers: Option<Root>,
    /// Modules of its own that a VM starts with, in the order in which they are loaded.
    pub early_modules: Vec<PathBuf>,
    /// Packages that building against it takes.
    pub packages: &'static [Group],
    /// What it was made of.
    pub config: Config,
}

impl Kernel {
    /// The make that builds modules against it.
    ///
    /// # Errors
    ///
    /// There is no place for the cache.
    pub fn make(&self) -> Result<Command> {
        let mut make = match &self.compilers {
            None => tool::builder("make"),
            Some(root) => root.program(&[cache::root()?, cache::checkout()], "make"),
        };
        make.arg(format!("-j{}", tool::jobs()))
            .args(&self.make_variables);
        Ok(make)
    }
}

/// Which kernel is meant.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Which {
    /// Guest kernel [default: base; of `demo`: what is soonest ready]
    #[arg(long, value_enum, value_name = "KIND")]
    pub kernel: Option<Named>,
    /// Kernel tree of yours that is built, with the source or as make got it by O=, whose kernel is booted with
    /// the driver built against it. Nothing in it is changed
    #[arg(long, value_name = "DIR", conflicts_with = "kernel",
          value_parser = OsStringValueParser::new().try_map(|word| tree::parse(&word)))]
    pub kernel_tree: Option<PathBuf>,
}

impl Named {
    /// The kernel as it is there.
    ///
    /// # Errors
    ///
    /// It is not built; says what to do.
    pub fn built(self) -> Result<Kernel> {
        match self {
            Named::Own(kind) => own::built(kind),
            Named::Debian => debian::built(),
        }
    }

    /// What it is made of; nothing if that is known only when it is there.
    pub fn config(self) -> Option<Config> {
        match (self.built(), self) {
            (Ok(built), _) => Some(built.config),
            (Err(_), Named::Own(kind)) => Some(Config::parse(&kind.fragment())),
            (Err(_), Named::Debian) => None,
        }
    }
}

impl Which {
    /// The one meant, unless it is a tree.
    fn named(&self) -> Named {
        self.kernel.unwrap_or_default()
    }

    /// The words that name this kernel on a command line.
    pub fn words(&self) -> [OsString; 2] {
        match &self.kernel_tree {
            None => ["--kernel".into(), self.named().name().into()],
            Some(folder) => ["--kernel-tree".into(), folder.into()],
        }
    }

    /// The kernel as it is there.
    ///
    /// # Errors
    ///
    /// It is not built, or is a tree that cannot be used; says what to do.
    pub fn built(&self) -> Result<Kernel> {
        match &self.kernel_tree {
            None => self.named().built(),
            Some(folder) => tree::open(folder),
        }
    }

    /// What it is made of, as far as that is known before it is there.
    pub fn config(&self) -> Option<Config> {
        match &self.kernel_tree {
            None => self.named().config(),
            Some(_) => self.built().ok().map(|built| built.config),
        }
    }

    /// Refuses a tree that cannot be used, before anything is built or waited for.
    ///
    /// # Errors
    ///
    /// Those of [`Which::built`], of a tree.
    pub fn check(&self) -> Result<()> {
        let opened = self.kernel_tree.as_deref().map(tree::open);
        opened.transpose().map(drop)
    }

    /// Builds what is missing of a kernel of ours; packages are installed if `install` says so. A tree of the
    /// user's is as it is.
    ///
    /// # Errors
    ///
    /// Says which step failed and where its log is, or those of [`Which::built`].
    pub fn build(&self, install: bool) -> Result<Kernel> {
        match &self.kernel_tree {
            None => match self.named() {
                Named::Own(kind) => own::build(kind, install),
                Named::Debian => debian::build(install),
            },
            Some(folder) => tree::open(folder),
        }
    }
}

impl Which {
    /// `error`, unless it comes of a tree that has gone meanwhile.
    pub fn explain(&self, error: Error) -> Error {
        match &self.kernel_tree {
            Some(folder) if !folder.is_dir() => tree::gone(folder),
            _ => error,
        }
    }

    /// Packages of the host that building it takes.
    pub fn packages(&self) -> Vec<Group> {
        if self.built().is_ok() || self.kernel_tree.is_some() {
            return Vec::new();
        }
        match self.named() {
            Named::Own(kind) => kind.variant.packages().to_vec(),
            Named::Debian => debian::packages().to_vec(),
        }
    }

    /// What is still to be done, as it was measured.
    pub fn expected(&self) -> Vec<Expected> {
        if self.built().is_ok() || self.kernel_tree.is_some() {
            return Vec::new();
        }
        match self.named() {
            Named::Own(kind) => own::expected(kind),
            Named::Debian => debian::expected(),
        }
    }
}

impl From<Named> for Which {
    fn from(kernel: Named) -> Self {
        Which {
            kernel: Some(kernel),
            kernel_tree: None,
        }
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))
}

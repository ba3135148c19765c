// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which kernel and which QEMU run the VMs, and the command line of `coax config`.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::Args;

use coax_images::images::{Images, Which};
use coax_images::kernel::tree;

/// The guest kernel, and QEMU.
#[derive(Args, Clone, Debug)]
pub struct Kernel {
    #[command(flatten)]
    pub which: Which,
    /// Build the kernel of --kernel-tree first, by make in it. Exit status 125 if there is nothing to boot
    /// then: it does not build, its configuration lacks something, the driver does not build against it, or
    /// this machine cannot; `git bisect run` takes that for a commit that cannot be tested
    #[arg(long, requires = "kernel_tree", conflicts_with = "kernel")]
    pub build: bool,
}

/// There is nothing to test: status 125.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Untestable(anyhow::Error);

impl Kernel {
    /// Both, once a tree has been built if that is asked for, with all that is built against it.
    ///
    /// # Errors
    ///
    /// [`Untestable`] if a tree was to be built and there is nothing to boot, whatever the reason: status 1
    /// would call the commit bad.
    pub fn ready(&self, install: bool) -> Result<&Which> {
        if let (true, Some(folder)) = (self.build, &self.which.kernel.kernel_tree) {
            let qemu = self.which.qemu.check();
            let made = qemu.and_then(|()| tree::make(folder, install));
            let built = made.and_then(|()| Images::build(&self.which, install));
            built.map_err(|error| Untestable(self.which.kernel.explain(error)))?;
        }
        Ok(&self.which)
    }
}

/// `coax config`
#[derive(Args, Debug)]
pub struct Configure {
    /// Kernel tree that is configured, with the source or as make got it by O=. Added are options without
    /// which no VM starts on its kernel; make in DIR settles what depends on them, and the configuration as
    /// it was stays beside it, as .config.before-coax
    #[arg(value_name = "DIR",
          value_parser = OsStringValueParser::new().try_map(|word| tree::parse(&word)))]
    pub tree: PathBuf,
    /// Add those options too that only some tests and programs use
    #[arg(long)]
    pub all: bool,
    /// Only print what would be added, with what it is for
    #[arg(long)]
    pub list: bool,
}

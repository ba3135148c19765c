// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guest kernels of ours are built for: what distinguishes their configuration and their compiler.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::host_packages::{self, Group};
use crate::tool;

/// What a guest kernel is built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The one that is fast
    #[default]
    Base,
    /// Checks locks, RCU, page tables, lists and slab objects, and finds leaks
    Debug,
    /// Checks every access to memory; clang builds it
    Kasan,
}

impl Variant {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Variant::Base => "base",
            Variant::Debug => "debug",
            Variant::Kasan => "kasan",
        }
    }

    /// The options on top of the base's and the version's.
    pub(super) fn fragment(self) -> &'static str {
        match self {
            Variant::Base => "",
            Variant::Debug => include_str!("../../kernel/debug.config"),
            Variant::Kasan => include_str!("../../kernel/kasan.config"),
        }
    }

    /// Lines that make prints for a whole build, for the estimate.
    pub(super) fn expected_lines(self) -> u64 {
        match self {
            Variant::Base => 2385,
            Variant::Debug => 2400,
            Variant::Kasan => 2420,
        }
    }

    /// Packages that building it takes.
    pub fn packages(self) -> &'static [Group] {
        if self.is_built_by_clang() {
            &[Group::Kernel, Group::Llvm]
        } else {
            &[Group::Kernel]
        }
    }

    /// Variables for make, besides those of Rust's tools.
    pub(super) fn make_variables(self) -> Vec<String> {
        let suffix = host_packages::llvm_suffix();
        let llvm = format!("LLVM={}", if suffix.is_empty() { "1" } else { suffix });
        let llvm = self.is_built_by_clang().then_some(llvm);
        llvm.into_iter().collect()
    }

    /// What a kernel that is built for this depends on besides what the base does.
    ///
    /// # Errors
    ///
    /// Its compiler is not here.
    pub(super) fn versions(self) -> Result<String> {
        if !self.is_built_by_clang() {
            return Ok(String::new());
        }
        let clang = format!("clang{}", host_packages::llvm_suffix());
        tool::version_of(Path::new(&clang))
    }

    /// With Rust, KASAN takes a kernel that clang built (`init/Kconfig`).
    fn is_built_by_clang(self) -> bool {
        self == Variant::Kasan
    }
}

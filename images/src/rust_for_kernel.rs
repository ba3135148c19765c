// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds, or builds, the tools behind the kernel's Rust.
//!
//! The kernel needs a compiler with the source of its core library, bindgen, and libclang for
//! bindgen. The distribution's compiler is preferred over rustup's, which mostly comes without
//! the source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::crate_program::CrateProgram;
use crate::tool;

/// Oldest bindgen that understands the kernel's headers (`scripts/min-tool-version.sh` of 7.2).
const MIN_BINDGEN: [u32; 3] = [0, 71, 1];
const BINDGEN: CrateProgram = CrateProgram {
    name: "bindgen-cli",
    program: "bindgen",
    crates: 46,
};

/// The tools.
#[derive(Clone, Debug)]
pub struct Toolchain {
    rustc: PathBuf,
    bindgen: PathBuf,
    libclang: PathBuf,
}

impl Toolchain {
    /// The tools on this machine.
    ///
    /// # Errors
    ///
    /// Says which is missing.
    pub fn find() -> Result<Self> {
        let rustc = find_rustc().context("No rustc with the source of Rust's core library")?;
        let bindgen = find_bindgen()?.context("No bindgen that the kernel can use")?;
        let libclang = find_libclang(Path::new("/usr/lib")).context("No libclang in /usr/lib")?;
        Ok(Toolchain {
            rustc,
            bindgen,
            libclang,
        })
    }

    /// The tools on this machine; bindgen is built if the distribution's will not do.
    ///
    /// # Errors
    ///
    /// Says which is missing, or why bindgen could not be built.
    pub fn find_or_build() -> Result<Self> {
        if find_bindgen()?.is_none() {
            BINDGEN.build()?;
        }
        Self::find()
    }

    /// The variables that name them to the kernel's make.
    pub fn variables(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("RUSTC", self.rustc.clone()),
            ("HOSTRUSTC", self.rustc.clone()),
            ("RUSTDOC", self.rustc.with_file_name("rustdoc")),
            ("BINDGEN", self.bindgen.clone()),
            ("LIBCLANG_PATH", self.libclang.clone()),
        ]
    }

    /// The same as make takes them on its command line.
    pub fn make_variables(&self) -> Vec<String> {
        let variables = self.variables().into_iter();
        variables
            .map(|(name, path)| format!("{name}={}", path.display()))
            .collect()
    }

    /// What a kernel built by these tools depends on.
    ///
    /// # Errors
    ///
    /// A tool does not tell its version.
    pub fn versions(&self) -> Result<String> {
        let rustc = tool::version_of(&self.rustc)?;
        let bindgen = tool::version_of(&self.bindgen)?;
        let gcc = tool::version_of(Path::new("gcc"))?;
        Ok(format!(
            "{rustc}\n{bindgen}\n{gcc}\n{}",
            self.libclang.display()
        ))
    }
}

/// The distribution's compiler, else the first in `PATH`, if its library's source is there.
fn find_rustc() -> Option<PathBuf> {
    [Some(PathBuf::from("/usr/bin/rustc")), tool::find("rustc")]
        .into_iter()
        .flatten()
        .find(|rustc| {
            let sysroot = tool::output_of(Command::new(rustc).args(["--print", "sysroot"]));
            sysroot.is_ok_and(|sysroot| {
                Path::new(&sysroot)
                    .join("lib/rustlib/src/rust/library/core/src/lib.rs")
                    .is_file()
            })
        })
}

fn find_bindgen() -> Result<Option<PathBuf>> {
    let own = BINDGEN.path()?;
    let system = Path::new("/usr/bin/bindgen").to_path_buf();
    Ok([system, own].into_iter().find(|bindgen| {
        bindgen.is_file()
            && tool::version_of(bindgen).is_ok_and(|text| is_new_enough(&text, MIN_BINDGEN))
    }))
}

/// Whether the version in `text`, as in `bindgen 0.72.1`, is at least `least`.
fn is_new_enough(text: &str, least: [u32; 3]) -> bool {
    let Some(version) = text.split_whitespace().nth(1) else {
        return false;
    };
    let numbers: Vec<u32> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    numbers.as_slice() >= least.as_slice()
}

/// The highest `llvm-N/lib` below `folder` that has libclang.
pub(crate) fn find_libclang(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let candidates = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let version: u32 = name.strip_prefix("llvm-")?.parse().ok()?;
        let library = folder.join(name).join("lib");
        let has = fs::read_dir(&library)
            .ok()?
            .filter_map(Result::ok)
            .any(|file| {
                let name = file.file_name();
                let name = name.to_string_lossy();
                // `libclang.so.1` or `libclang-19.so`, but no `libclang-cpp.so` and no `.a`.
                name.starts_with("libclang.so")
                    || name.starts_with(&format!("libclang-{version}.so"))
            });
        has.then_some((version, library))
    });
    candidates.max().map(|(_, library)| library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_new_enough("bindgen 0.72.1", MIN_BINDGEN));
        assert!(is_new_enough("bindgen 0.71.1", MIN_BINDGEN));
        assert!(is_new_enough("bindgen 1.0.0", MIN_BINDGEN));
        assert!(!is_new_enough("bindgen 0.71.0", MIN_BINDGEN));
        assert!(!is_new_enough("bindgen 0.9.5", MIN_BINDGEN));
        assert!(!is_new_enough("nothing", MIN_BINDGEN));
    }

    #[test]
    fn newest_libclang_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for version in ["9", "14", "19"] {
            let library = folder.path().join(format!("llvm-{version}/lib"));
            fs::create_dir_all(&library).expect("writable");
            if version != "19" {
                fs::write(library.join("libclang.so.1"), "").expect("writable");
            }
        }
        assert_eq!(
            find_libclang(folder.path()),
            Some(folder.path().join("llvm-14/lib"))
        );
    }
}

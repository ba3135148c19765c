// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian's packages of kernels, taken apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache;
use crate::tool;

/// Takes out all files of a package.
///
/// # Errors
///
/// Those of dpkg, with the log's place.
pub fn extract(package: &Path, folder: &Path, log: &Path) -> Result<()> {
    cache::make_folder(folder)?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--extract").arg(package).arg(folder);
    tool::run_logged(&mut dpkg, "Unpacking the kernel's package", log, |_| {})
}

/// Takes the source out of a package that has it as an archive, but for what is `left_out` (patterns of tar's): as `tree`, which
/// appears complete or not at all.
///
/// # Errors
///
/// The package has no archive, and those of [`extract`] and [`tool::unpack_source`].
pub fn unpack(package: &Path, tree: &Path, left_out: &[&str], log: &Path) -> Result<()> {
    let unpacked = tree.with_extension("package");
    extract(package, &unpacked, log)?;
    let archive = archive_in(&unpacked.join("usr/src"))?;
    let title = "Unpacking the kernel's source";
    tool::unpack_source(&archive, tree, left_out, title, log, |_| Ok(()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("Cannot remove {}", unpacked.display()))
}

fn archive_in(folder: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("Cannot read {}", folder.display()))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".tar"))
        .with_context(|| format!("No source archive in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package as Debian has them: an archive of one folder, in `usr/src`.
    fn package(folder: &Path) -> PathBuf {
        let script = "mkdir -p linux-source-7.9/drivers/gpu linux-source-7.9/arch/x86/boot/dts p/usr/src p/DEBIAN\n\
                      cd linux-source-7.9\n\
                      echo made > Makefile; echo tree > arch/x86/boot/dts/a.dts; echo c > drivers/gpu/a.c\n\
                      cd ..\n\
                      tar --create --file p/usr/src/linux-source-7.9.tar linux-source-7.9\n\
                      printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: me <a@b>\\nDescription: p\\n' > p/DEBIAN/control\n\
                      dpkg-deb --root-owner-group --build p p.deb";
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]).current_dir(folder);
        tool::output_of(&mut shell).expect("a package");
        folder.join("p.deb")
    }

    #[test]
    fn a_source_comes_out_of_its_package_without_what_is_left_out() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let package = package(top.path());
        let (tree, log) = (top.path().join("tree"), top.path().join("log"));
        unpack(&package, &tree, &["arch/*/boot/dts"], &log).expect("a whole package");
        let made = fs::read_to_string(tree.join("Makefile")).expect("it is there");
        assert_eq!(made, "made\n");
        assert!(tree.join("drivers/gpu/a.c").exists());
        assert!(tree.join("arch/x86/boot").is_dir());
        assert!(!tree.join("arch/x86/boot/dts").exists());
        assert!(!tree.with_extension("package").exists());
    }

    #[test]
    fn a_package_without_an_archive_leaves_no_tree() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let (tree, log) = (top.path().join("tree"), top.path().join("log"));
        let package = top.path().join("p.deb");
        fs::write(&package, "no package").expect("writable");
        unpack(&package, &tree, &[], &log).expect_err("no package");
        assert!(!tree.exists());
    }
}

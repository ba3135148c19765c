// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The BLAS drop-in in the guest, with the dynamic userland that its test needs.
//!
//! The library goes where it is installed anywhere, `/usr/lib/coax`. Beside it the small root file
//! system gets ordinary programs on libblas, the distribution's reference BLAS and the few libraries
//! that all of them need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache;
use crate::initramfs::{Link, Member};
use crate::tool;

/// Folder of the library's sources.
const SOURCES: &str = "guest-driver/blas";
/// The distribution's reference BLAS, which is also the CPU's in the small root file system.
const REFERENCE: &str = "/usr/lib/x86_64-linux-gnu/blas/libblas.so.3";
/// Ordinary programs on libblas, by name and source: the test's, one that does something useful, and one
/// that takes the time of calls.
const PROGRAMS: &[(&str, &str)] = &[
    ("blas_check", "tests/blas_check.c"),
    ("normal_equations", "bench/normal_equations.c"),
    ("blas_sweep", "bench/sweep.c"),
];

/// What goes into the root file system.
#[derive(Debug, Default)]
pub struct Files {
    /// Files.
    pub members: Vec<Member>,
    /// Symbolic links.
    pub links: Vec<Link>,
}

/// Lays out the built `library` and builds the program, both in `folder`.
///
/// # Errors
///
/// Those of the tools, with the log's place.
pub fn stage(library: &Path, folder: &Path, log: &Path) -> Result<Files> {
    let sources = cache::checkout().join(SOURCES);
    let mut install = tool::builder(sources.join("install.sh"));
    install.arg(library).arg(folder);
    tool::run_logged(&mut install, "Laying out the BLAS drop-in", log, |_| {})?;
    let mut files = Files::default();
    collect(&folder.join("usr"), "/usr", &mut files)?;
    files
        .members
        .push(member(REFERENCE, &fs::canonicalize(REFERENCE)?, 0o644));
    let mut needed = BTreeMap::new();
    for (name, source) in PROGRAMS {
        let program = folder.join(name);
        build_program(&sources, source, &program, log)?;
        needed.append(&mut userland(&program)?);
        let place = format!("/bin/{name}");
        files.members.push(member(&place, &program, 0o755));
    }
    for (guest_path, host_path) in needed {
        files.members.push(member(&guest_path, &host_path, 0o755));
    }
    Ok(files)
}

fn member(guest_path: &str, host_path: &Path, mode: u32) -> Member {
    Member {
        guest_path: guest_path.into(),
        host_path: host_path.into(),
        mode,
    }
}

/// An ordinary program: linked against libblas, and not against this project's.
fn build_program(sources: &Path, source: &str, program: &Path, log: &Path) -> Result<()> {
    let mut compiler = tool::builder("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-s"]);
    compiler.arg("-I").arg(sources.join("../lib/include"));
    compiler.arg(sources.join(source));
    compiler.args([REFERENCE, "-lm", "-lpthread"]);
    compiler.arg("-o").arg(program);
    tool::run_logged(&mut compiler, "Building programs on libblas", log, |_| {})
}

/// Adds all in a folder of the host as it will be in the guest.
fn collect(folder: &Path, guest_folder: &str, files: &mut Files) -> Result<()> {
    let context = || format!("Cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let guest_path = format!("{guest_folder}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().with_context(context)?;
        if kind.is_dir() {
            collect(&entry.path(), &guest_path, files)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).with_context(context)?;
            let target = target.to_string_lossy().into_owned();
            files.links.push(Link { guest_path, target });
        } else {
            let mode = entry.metadata().with_context(context)?.permissions().mode() & 0o777;
            files.members.push(member(&guest_path, &entry.path(), mode));
        }
    }
    Ok(())
}

/// Libraries that the program, the reference BLAS and the drop-in need, by their place in the guest:
/// that of the host.
fn userland(program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut add = |path: &str| -> Result<()> {
        let real = fs::canonicalize(path).with_context(|| format!("Cannot find {path}"))?;
        found.insert(path.to_owned(), real);
        Ok(())
    };
    for object in [program, Path::new(REFERENCE)] {
        // With the reference BLAS in front, whatever the host's alternatives say.
        let folder = Path::new(REFERENCE).parent().unwrap_or(Path::new("/"));
        let mut ldd = tool::builder("ldd");
        ldd.arg(object).env("LD_LIBRARY_PATH", folder);
        let text = tool::output_of(&mut ldd)
            .with_context(|| format!("Cannot ask what {} needs", object.display()))?;
        for path in needed(&text).filter(|path| *path != REFERENCE) {
            add(path)?;
        }
    }
    // Rust's libraries need it.
    let mut compiler = tool::builder("cc");
    compiler.arg("-print-file-name=libgcc_s.so.1");
    let unwinder = fs::canonicalize(tool::output_of(&mut compiler)?.trim())?;
    add(&unwinder.to_string_lossy())?;
    Ok(found)
}

/// Paths in what `ldd` prints: behind an arrow, or alone for the loader.
fn needed(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| {
        let place = line.split_once("=>").map_or(line, |(_, place)| place);
        place
            .split_whitespace()
            .next()
            .filter(|path| path.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_in_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                    \tlibblas.so.3 => /usr/lib/blas/libblas.so.3 (0x00007f00)\n\
                    \tlibc.so.6 => /lib/libc.so.6 (0x00007f11)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f22)\n";
        let expected = [
            "/usr/lib/blas/libblas.so.3",
            "/lib/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert!(needed(text).eq(expected));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Links the library as `libblas.so.3` on top of the CPU's BLAS, which it needs by a name of its own.
//!
//! The loader finds that name in `cpu-blas/*`, where links lead to the distribution's libraries (see
//! `README.md`). All symbols that this library lacks so come from there. None of it need exist when
//! this library is built: the linker is content with an empty library of the right name.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Name that the CPU's BLAS is needed by.
const CPU_BLAS: &str = "libcoax-blas-cpu.so.3";
/// Folders under `cpu-blas` in the order in which they are searched.
const CHOICES: &[&str] = &[
    "chosen",
    "openblas-pthread",
    "openblas-openmp",
    "openblas-serial",
    "blas",
];
/// Where the library is installed; needed when it is loaded through a link in another folder.
const INSTALLED: &str = "/usr/lib/coax";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=COAX_CPU_BLAS={CPU_BLAS}");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let stand_in = folder.join(CPU_BLAS);
    let status = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-shared", "-nostdlib", "-x", "c", "/dev/null"])
        .arg(format!("-Wl,-soname,{CPU_BLAS}"))
        .arg("-o")
        .arg(&stand_in)
        .status()
        .expect("the C compiler, which also links Rust programs, can be started");
    assert!(status.success(), "the C compiler made no {CPU_BLAS}");

    // Cargo 1.85 links the unit tests like the library; they find the stand-in where cargo says.
    println!("cargo::rustc-link-search=native={}", folder.display());

    let run_path: Vec<String> = ["$ORIGIN", INSTALLED]
        .iter()
        .flat_map(|top| {
            CHOICES
                .iter()
                .map(move |choice| format!("{top}/cpu-blas/{choice}"))
        })
        .collect();
    for argument in [
        "-Wl,-soname,libblas.so.3".to_owned(),
        "-Wl,--enable-new-dtags".to_owned(),
        format!("-Wl,-rpath,{}", run_path.join(":")),
        // What other crates offer to C is not this library's.
        "-Wl,--exclude-libs,ALL".to_owned(),
        "-Wl,--no-as-needed".to_owned(),
        stand_in.display().to_string(),
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}

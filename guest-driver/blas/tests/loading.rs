// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An ordinary program on libblas with the library in its place, on a machine without a device: it is
//! found in every way, what it lacks comes from the CPU's BLAS, and results are that library's.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The distribution's reference BLAS.
const REFERENCE: &str = "/usr/lib/x86_64-linux-gnu/blas/libblas.so.3";

/// An installation and the program, or nothing on a machine without the distribution's BLAS.
struct Installed {
    scratch: TempDir,
}

impl Installed {
    #[expect(
        clippy::print_stdout,
        reason = "it is part of a test, whose output libtest keeps"
    )]
    fn new() -> Option<Self> {
        if !Path::new(REFERENCE).exists() {
            println!("skipped: there is no {REFERENCE} (package libblas3)");
            return None;
        }
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        run(Command::new(package.join("install.sh"))
            .arg(library())
            .arg(scratch.path()));
        run(Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror"])
            .arg("-I")
            .arg(package.join("../lib/include"))
            .arg(package.join("tests/blas_check.c"))
            .args([REFERENCE, "-lm", "-lpthread"])
            .arg("-o")
            .arg(scratch.path().join("blas_check")));
        let installed = Self { scratch };
        // The reference BLAS is the CPU's, whatever else this machine has.
        let chosen = installed.folder().join("cpu-blas/chosen");
        fs::create_dir(&chosen).expect("a folder for the choice");
        let link = chosen.join("libcoax-blas-cpu.so.3");
        std::os::unix::fs::symlink(REFERENCE, link).expect("a link");
        Some(installed)
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("usr/lib/coax")
    }

    /// `coax-blas why` on a program, without a device, with a threshold: its status, and what is said on standard error.
    fn why(&self, least: &str, program: &[&OsStr]) -> (Option<i32>, String) {
        let output = Command::new(self.scratch.path().join("usr/bin/coax-blas"))
            .arg("why")
            .args(program)
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("COAX_BLAS_WHY")
            .env("COAX_BLAS_DEVICE", "/nonexistent/coax0")
            .env("COAX_BLAS_MIN_FLOPS", least)
            .output()
            .expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    }

    /// Runs the program's cases; what it prints, and what the library reports.
    fn check(&self, cases: &[&str], variable: &str, value: &Path) -> (String, String) {
        let report = self.scratch.path().join("report.json");
        let printed = run(Command::new(self.scratch.path().join("blas_check"))
            .arg(REFERENCE)
            .args(cases)
            // Cargo's own leads to the stand-in for the CPU's library.
            .env_remove("LD_LIBRARY_PATH")
            .env(variable, value)
            .env("COAX_BLAS_DEVICE", "/nonexistent/coax0")
            .env("COAX_BLAS_MIN_FLOPS", "1")
            .env("COAX_BLAS_STATS", &report));
        let reports = fs::read_to_string(report).expect("the library was loaded and reported");
        (printed, reports)
    }
}

/// The library that cargo built with the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("libcoax_blas.so"))
        .find(|library| library.exists())
        .expect("cargo builds the dynamic library with the tests")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

#[test]
fn program_gets_the_cpus_results_by_either_way_of_loading() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let cases = ["level3", "vectors", "special", "forks"];
    for (variable, value) in [
        ("LD_LIBRARY_PATH", installed.folder()),
        ("LD_PRELOAD", installed.folder().join("libblas.so.3")),
    ] {
        let (printed, reports) = installed.check(&cases, variable, &value);
        assert_eq!(printed, "ok level3\nok vectors\nok special\nok forks\n");
        assert!(reports.contains("\"offloaded\":0,"), "{reports}");
        assert!(reports.contains("\"absent\":"), "{reports}");
    }
}

#[test]
fn link_in_another_folder_finds_what_is_behind_the_library() {
    // As the distribution's alternatives have it: the name in the loader's folder leads here.
    let Some(installed) = Installed::new() else {
        return;
    };
    let elsewhere = installed.scratch.path().join("alternatives");
    fs::create_dir(&elsewhere).expect("a folder");
    let library = installed.folder().join("libblas.so.3");
    std::os::unix::fs::symlink(library, elsewhere.join("libblas.so.3")).expect("a link");
    // Installed for good, the links are found by their own path; here that is elsewhere too.
    let links = installed.folder().join("cpu-blas");
    std::os::unix::fs::symlink(links, elsewhere.join("cpu-blas")).expect("a link");
    let (printed, _) = installed.check(&["special"], "LD_LIBRARY_PATH", &elsewhere);
    assert_eq!(printed, "ok special\n");
}

#[test]
fn wrong_arguments_reach_the_programs_own_xerbla() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let folder = installed.folder();
    let (printed, reports) = installed.check(&["bad_arguments"], "LD_LIBRARY_PATH", &folder);
    assert_eq!(printed, "ok bad_arguments\n");
    assert!(reports.contains("\"on_cpu\":{\"arguments\":"), "{reports}");
}

#[test]
fn each_call_is_told_of_with_its_reason() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let program = installed.scratch.path().join("blas_check");
    let why = |least, case| {
        let program = [program.as_ref(), REFERENCE.as_ref(), OsStr::new(case)];
        let (status, said) = installed.why(least, &program);
        assert_eq!(status, Some(0), "{said}");
        said
    };
    let said = why("1", "special");
    let expected = "coax-blas: dgemm 90×90×90: on the CPU, no device (/nonexistent/coax0)";
    assert!(said.lines().any(|line| line == expected), "{said}");
    assert!(said.contains("matrices overlap"), "{said}");
    let said = why("1e9", "special");
    let calls = said
        .lines()
        .filter_map(|line| line.strip_prefix("coax-blas: dgemm: "));
    let calls: Vec<_> = calls.collect();
    assert_eq!(calls, ["4 calls on the CPU: too few operations"], "{said}");
    let said = why("1", "bad_arguments");
    let expected = "coax-blas: dgemm: on the CPU, an argument is wrong";
    assert!(said.lines().any(|line| line == expected), "{said}");
}

#[test]
fn program_that_makes_no_call_or_no_report_is_told_of() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let (status, said) = installed.why("1", &[OsStr::new("true")]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("no call came to the library"), "{said}");
    let ended = ["sh", "-c", "kill -9 $$"].map(OsStr::new);
    let (status, said) = installed.why("1", &ended);
    assert_eq!(status, Some(128 + 9), "{said}");
    assert!(said.contains("no report of sh"), "{said}");
}

#[test]
fn library_that_a_program_brings_along_gets_its_calls_through_this_one() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let top = installed.scratch.path();
    let build = |name: &str, arguments: &[&str]| {
        let file = top.join(name);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/brought_along.c");
        run(Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror", source, "-o"])
            .arg(&file)
            .arg(format!("-Wl,-rpath,{}", top.display()))
            .arg(format!("-L{}", top.display()))
            .args(arguments));
        file
    };
    let shared = ["-shared", "-fPIC"];
    build("libown_blas.so", &[&shared[..], &["-DPART_BLAS"]].concat());
    let link = ["-DPART_EXTENSION", "-lown_blas"];
    let module = build("module.so", &[&shared[..], &link].concat());
    let program = build("brings_along", &["-ldl"]);

    // Without this library, and with it: all reach the program's own in the end.
    let alone = run(Command::new(&program).arg(&module));
    assert_eq!(alone, "7\n");
    let report = top.join("report.json");
    let printed = run(Command::new(&program)
        .arg(&module)
        .env_remove("LD_LIBRARY_PATH")
        .env("LD_PRELOAD", installed.folder().join("libblas.so.3"))
        .env("COAX_BLAS_DEVICE", "/nonexistent/coax0")
        .env("COAX_BLAS_MIN_FLOPS", "1")
        .env("COAX_BLAS_STATS", &report));
    assert_eq!(printed, alone);
    let reports = fs::read_to_string(report).expect("the library was loaded and reported");
    assert!(reports.contains("\"on_cpu\":{\"absent\":7}"), "{reports}");
}

#[test]
fn words_that_nobody_takes_end_no_program() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let full = File::options().write(true).open("/dev/full");
    let (reader, gone) = UnixStream::pair().expect("a pair");
    drop(reader);
    let ends: [OwnedFd; 2] = [full.expect("every Linux has it").into(), gone.into()];
    for stderr in ends {
        // The setting is complained of at the first call, the report comes at the end.
        let status = Command::new(installed.scratch.path().join("blas_check"))
            .args([REFERENCE, "special"])
            .env("LD_LIBRARY_PATH", installed.folder())
            .env("COAX_BLAS_DEVICE", "/nonexistent/coax0")
            .env("COAX_BLAS_MIN_FLOPS", "many")
            .env("COAX_BLAS_STATS", "1")
            .stdout(Stdio::null())
            .stderr(stderr)
            .status()
            .expect("it starts");
        assert!(status.success(), "{status}");
    }
}

#[test]
fn program_that_names_the_c_interface_gets_the_same_library() {
    let Some(installed) = Installed::new() else {
        return;
    };
    let names = ["libblas.so.3", "libcblas.so.3"];
    let real =
        names.map(|name| fs::canonicalize(installed.folder().join(name)).expect("it is there"));
    assert_eq!(real[0], real[1]);
}

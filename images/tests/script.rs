// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The script `coax`, with programs in its `PATH` that only tell how they are called.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coax_images::{cache, tool};
use tempfile::TempDir;

/// What the script uses of any machine.
const TOOLS: &[&str] = &[
    "cat", "chmod", "cksum", "cut", "date", "dirname", "env", "head", "id", "printf", "readlink",
    "sed", "sh", "sort",
];
const CARGO: &str = "case $1 in --version) echo 'cargo 1.96.0' ;; \
                     *) echo \"$CARGO_TARGET_DIR|$COAX_CHECKOUT|$*\" ;; esac";

/// A folder with the script and one with programs.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Machine(tempfile::tempdir().expect("a temporary folder"));
        fs::create_dir(machine.programs()).expect("writable");
        for name in TOOLS {
            let file = tool::find(name).expect("every machine has it");
            symlink(file, machine.programs().join(name)).expect("writable");
        }
        machine.program("cc", "");
        machine
    }

    fn programs(&self) -> PathBuf {
        self.0.path().join("bin")
    }

    fn program(&self, name: &str, script: &str) {
        let script = format!("#!/bin/sh\n{script}\n");
        install(script.as_bytes(), &self.programs().join(name));
    }

    /// A checkout of this name, as far as the script looks at it.
    fn checkout(&self, name: &str) -> PathBuf {
        let folder = self.0.path().join(name);
        fs::create_dir(&folder).expect("writable");
        let script = fs::read(cache::checkout().join("coax")).expect("it is there");
        install(&script, &folder.join("coax"));
        folder
    }

    /// Output and errors of the script in a checkout.
    fn run(&self, checkout: &Path, shared: Option<&Path>) -> (String, String) {
        self.run_in(checkout, shared.map(|folder| ("CARGO_TARGET_DIR", folder)))
    }

    /// The same with these variables.
    fn run_in<'a>(
        &self,
        checkout: &Path,
        variables: impl IntoIterator<Item = (&'a str, &'a Path)>,
    ) -> (String, String) {
        let mut command = Command::new(checkout.join("coax"));
        command.args(["run", "--", "a b"]).env_clear();
        command.env("PATH", self.programs()).envs(variables);
        let output = command.output().expect("a shell script");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let (out, errors) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{out}{errors}");
        (out, errors)
    }
}

/// Writes a program by a program of its own: a child of another test would keep a file of ours open, and the
/// kernel runs no file that somebody may write.
fn install(contents: &[u8], program: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(program);
    let mut install = install.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut input = install.stdin.take().expect("a pipe");
    input.write_all(contents).expect("it reads");
    drop(input);
    assert!(
        install.wait().expect("it ends").success(),
        "{}",
        program.display()
    );
}

#[test]
fn cargo_is_asked_for_the_program_and_given_its_arguments() {
    let machine = Machine::new();
    machine.program("cargo", CARGO);
    let checkout = machine.checkout("a checkout");
    let (out, _) = machine.run(&checkout, None);
    let here = checkout.display();
    assert!(
        out.starts_with(&format!("{here}/target|{here}|run ")),
        "{out}"
    );
    assert!(out.ends_with("--bin coax -- run -- a b\n"), "{out}");
}

#[test]
fn checkouts_that_share_a_build_folder_have_each_their_own_in_it() {
    let machine = Machine::new();
    machine.program("cargo", CARGO);
    let shared = machine.0.path().join("shared");
    let folders = ["one", "two"].map(|name| {
        let (out, _) = machine.run(&machine.checkout(name), Some(&shared));
        out.split('|').next().expect("a folder").to_owned()
    });
    assert_ne!(folders[0], folders[1]);
    for folder in folders {
        assert!(Path::new(&folder).starts_with(&shared), "{folder}");
    }
}

#[test]
fn flags_of_the_callers_own_builds_are_not_cargos() {
    let machine = Machine::new();
    machine.program(
        "cargo",
        "case $1 in --version) echo 'cargo 1.96.0' ;; *) env ;; esac",
    );
    let flags = [
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_PROFILE_RELEASE_OPT_LEVEL",
        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
    ];
    let kept = ["CARGO_BUILD_JOBS", "CARGO_HOME", "KCFLAGS"];
    let variables = flags
        .iter()
        .chain(&kept)
        .map(|name| (*name, Path::new("x")));
    let (out, _) = machine.run_in(&machine.checkout("checkout"), variables);
    let has = |name: &str| out.lines().any(|line| line == format!("{name}=x"));
    for name in flags {
        assert!(!has(name), "{name}: {out}");
    }
    for name in kept {
        assert!(has(name), "{name}: {out}");
    }
}

/// A machine without cargo, with a compiler of version 1.85, whose apt-get brings a cargo.
fn without_cargo() -> Machine {
    let machine = Machine::new();
    let place = machine.programs();
    machine.program("dpkg-query", "echo 'installed 1.85.0+dfsg3-1'");
    machine.program("dpkg", "exit 0");
    machine.program(
        "apt-get",
        &format!(
            "case $* in *--simulate*) \
             echo 'Inst rustc [1.85.0+dfsg3-1] (1.96.0+dfsg1-1 Debian:12 [amd64])' ;; \
             *) echo \"apt-get $*\"; printf '%s\\n' '#!/bin/sh' \"{}\" > {place}/cargo; \
             chmod +x {place}/cargo ;; esac",
            CARGO.replace('"', "\\\"").replace('$', "\\$"),
            place = place.display()
        ),
    );
    machine
}

#[test]
fn the_cargo_of_the_compiler_that_is_there_is_installed() {
    let machine = without_cargo();
    machine.program("apt-cache", "exit 0");
    let (_, errors) = machine.run(&machine.checkout("checkout"), None);
    assert!(errors.contains("=1.85.0+dfsg3-1"), "{errors}");
}

#[test]
fn what_installing_changes_is_said() {
    let machine = without_cargo();
    machine.program("apt-cache", "exit 100");
    let (_, errors) = machine.run(&machine.checkout("checkout"), None);
    let change = "coax: this changes rustc from 1.85.0+dfsg3-1 to 1.96.0+dfsg1-1\n";
    let installed = errors.find("apt-get install").expect("it is installed");
    assert!(
        errors.find(change).is_some_and(|at| at < installed),
        "{errors}"
    );
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The script `coax`, with programs in its `PATH` that only tell how they are called.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let file = self.programs().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("writable");
    }

    /// A checkout of this name, as far as the script looks at it.
    fn checkout(&self, name: &str) -> PathBuf {
        let folder = self.0.path().join(name);
        fs::create_dir(&folder).expect("writable");
        fs::copy(cache::checkout().join("coax"), folder.join("coax")).expect("writable");
        folder
    }

    /// Output and errors of the script in a checkout.
    fn run(&self, checkout: &Path, shared: Option<&Path>) -> (String, String) {
        let mut command = Command::new(checkout.join("coax"));
        command.args(["run", "--", "a b"]).env_clear();
        command.env("PATH", self.programs());
        command.envs(shared.map(|folder| ("CARGO_TARGET_DIR", folder)));
        let output = command.output().expect("a shell script");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let (out, errors) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{out}{errors}");
        (out, errors)
    }
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

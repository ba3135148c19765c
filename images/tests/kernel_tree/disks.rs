// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks without room.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use crate::fake::{files, Programs, Tree, QEMU};

/// How a program gets namespaces in which it may mount.
const NAMESPACES: &[&str] = &["--map-root-user", "--mount"];

/// Runs these lines of a shell with a disk of so many KiB at `$DISK`, in namespaces that end with it; not at all
/// where nobody gets such.
#[expect(
    clippy::print_stdout,
    reason = "it is part of a test, whose output libtest keeps"
)]
fn with_small_disk(kib: u32, script: &str, variables: &[(&str, &OsStr)]) -> Option<Output> {
    let mut allowed = Command::new("unshare");
    let allowed = allowed
        .args(NAMESPACES)
        .arg("true")
        .output()
        .expect("it starts");
    if !allowed.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&allowed.stderr));
        return None;
    }
    let disk = tempfile::tempdir().expect("a temporary folder");
    let mut shell = Command::new("unshare");
    shell.args(NAMESPACES).args(["sh", "-euc"]);
    shell.arg(format!(
        "mount -t tmpfs -o size={kib}k disk \"$DISK\"\n{script}"
    ));
    shell.env("DISK", disk.path());
    shell.env("COAX", env!("CARGO_BIN_EXE_coax"));
    shell.envs(variables.iter().copied()).stdin(Stdio::null());
    Some(shell.output().expect("it starts"))
}

#[test]
fn a_full_disk_leaves_a_configuration_as_it_was() {
    let tree = Tree::new();
    tree.without(".config", "CONFIG_RUST=");
    let script = "cp -a \"$TREE/.\" \"$DISK\"\ncat /dev/zero > \"$DISK/rest\" 2>/dev/null || :\n\
                  status=0; \"$COAX\" config \"$DISK\" || status=$?\n\
                  rm \"$DISK/rest\"; diff -r \"$TREE\" \"$DISK\"; exit $status";
    let cache = tempfile::tempdir().expect("a temporary folder");
    let variables = [
        ("TREE", tree.path().as_os_str()),
        ("XDG_CACHE_HOME", cache.path().as_os_str()),
    ];
    let Some(output) = with_small_disk(256, script, &variables) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}{told}");
    assert_eq!(told, "", "{text}");
    assert!(
        text.starts_with("coax: Cannot write ") && text.lines().count() == 1,
        "{text}"
    );
    assert!(text.contains("No space left on device"), "{text}");
}

#[test]
fn a_disk_without_room_for_the_guest_is_refused_with_both_numbers() {
    let tree = Tree::new();
    let programs = Programs::new(&[("qemu", QEMU)]);
    let qemu = programs.file("qemu");
    let before = files(tree.path());
    let variables = [
        ("TREE", tree.path().as_os_str()),
        ("QEMU", qemu.as_os_str()),
    ];
    let script =
        "XDG_CACHE_HOME=$DISK \"$COAX\" --no-install run --qemu \"$QEMU\" --kernel-tree \"$TREE\"";
    let Some(output) = with_small_disk(1024, script, &variables) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    // What has been begun may be told before.
    let errors = text.lines().filter(|line| line.starts_with("coax: "));
    assert_eq!(errors.count(), 1, "{text}");
    assert!(
        text.contains("Not enough disk space for the guest"),
        "{text}"
    );
    assert!(text.contains("XDG_CACHE_HOME"), "{text}");
    assert_eq!(files(tree.path()), before);
}

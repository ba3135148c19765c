// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's Makefile: folders as users name them.

use std::fs;
use std::path::Path;
use std::process::Command;

use coax_images::cache;

/// A folder with the driver's Makefile in `guest-driver`, and `kernel`, which is no kernel.
fn folder(top: &Path) {
    let driver = top.join("guest-driver");
    for folder in [driver.clone(), top.join("kernel")] {
        fs::create_dir_all(folder).expect("writable");
    }
    for name in ["Makefile", "check-kernel.sh"] {
        let from = cache::checkout().join("guest-driver").join(name);
        fs::copy(from, driver.join(name)).expect("writable");
    }
}

/// What `make -C guest-driver check` complains of.
fn complaint(top: &Path, kdir: &str) -> String {
    let output = Command::new("make")
        .args(["-C", "guest-driver", "check", &format!("KDIR={kdir}")])
        .current_dir(top)
        .env("PWD", top)
        .env("LC_ALL", "C")
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make is needed for everything here");
    assert!(!output.status.success(), "{kdir}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_relative_kernel_folder_is_found_from_where_make_is_called_and_from_the_driver() {
    let top = tempfile::tempdir().expect("a temporary folder");
    folder(top.path());
    let found = format!("{}: not configured", top.path().join("kernel").display());
    for kdir in ["kernel", "../kernel"] {
        let text = complaint(top.path(), kdir);
        assert!(text.contains(&found), "{text}");
    }
    let text = complaint(top.path(), "nowhere");
    assert!(
        text.contains("nowhere: no such kernel build tree"),
        "{text}"
    );
}

#[test]
fn blanks_are_refused_by_name() {
    let top = tempfile::tempdir().expect("a temporary folder");
    let odd = top.path().join("a b");
    folder(&odd);
    let text = complaint(&odd, "/usr");
    assert!(text.contains("CURDIR") && text.contains("a b"), "{text}");
    folder(top.path());
    let text = complaint(top.path(), "/x y");
    assert!(text.contains("KDIR is \"/x y\""), "{text}");
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel trees of users that cannot be used: one line that says what to do, and nothing changed.

mod disks;
mod fake;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fake::{coax, errors, files, image, version_here, Programs, Tree, MADE, RELEASE, SOURCE};

/// Its name, what is wrong, and what has to be told.
type Case = (&'static str, fn(&Tree), &'static [&'static str]);

const RUN: &[&str] = &["--no-install", "run"];

#[test]
fn what_is_no_tree_for_this_machine_is_refused_in_one_line() {
    let cases: [Case; 13] = [
        (
            "no tree",
            |tree| tree.write("Makefile", "all:\n"),
            &["is no kernel tree", "O="],
        ),
        (
            "a source that is gone",
            |tree| tree.is_built_from(Path::new("/nowhere/at-all")),
            &[
                "built from /nowhere/at-all",
                "no source of a kernel any more",
            ],
        ),
        (
            "not configured",
            |tree| tree.remove(".config"),
            &["is not configured", "defconfig", "O="],
        ),
        (
            "another architecture",
            |tree| {
                tree.write(
                    ".config",
                    "# Linux/arm64 7.2.0 Kernel Configuration\nCONFIG_ARM64=y\n",
                )
            },
            &["arm64", "x86-64"],
        ),
        (
            "never built",
            |tree| tree.remove("include/config/auto.conf"),
            &["is not built", "auto.conf", "make -C", "--build"],
        ),
        (
            "built in part",
            |tree| tree.remove("Module.symvers"),
            &["no Module.symvers", "make -C", "modules"],
        ),
        (
            "configured anew",
            |tree| tree.without("include/config/auto.conf", "CONFIG_RUST="),
            &["was last built without CONFIG_RUST", "make -C"],
        ),
        (
            "an old source",
            |tree| tree.write("Makefile", "# SPDX\nVERSION = 6\nPATCHLEVEL = 18\n"),
            &["is Linux 6.18", "7.2 or later"],
        ),
        (
            "an old kernel",
            |tree| tree.write("include/config/kernel.release", "7.1.9\n"),
            &["is Linux 7.1.9", "7.2 or later"],
        ),
        (
            "an old image",
            |tree| {
                let old = image(&format!("{RELEASE} (me@here) {}", MADE.replace("#2", "#1")));
                tree.write("arch/x86/boot/bzImage", old);
            },
            &[
                "image of 7.2.0-mine (me@here) #1",
                "7.2.0-mine #2",
                "make -C",
                "--build",
            ],
        ),
        (
            "an image of something else",
            |tree| tree.write("arch/x86/boot/bzImage", [0; 4096]),
            &["bzImage is no image of a kernel"],
        ),
        (
            "symbols of another build",
            |tree| tree.write("Module.symvers", "0x0\ttwo\tvmlinux\tEXPORT_SYMBOL\t\n"),
            &[
                "Module.symvers of another build",
                "does not export two",
                "make -C",
            ],
        ),
        (
            "no record of compilers",
            |tree| tree.remove("rust/.core.o.cmd"),
            &["rust/.core.o.cmd", "Build it anew"],
        ),
    ];
    for (name, spoil, told) in cases {
        let tree = Tree::new();
        spoil(&tree);
        let text = tree.refusal(RUN, 1);
        assert_eq!(text.lines().count(), 1, "{name}: {text}");
        for part in told {
            assert!(text.contains(part), "{name}: {part} is missing in: {text}");
        }
    }
}

#[test]
fn what_the_configuration_lacks_is_a_list_with_reasons_and_the_way_out() {
    let tree = Tree::new();
    tree.without(".config", "CONFIG_RUST=");
    tree.without(".config", "CONFIG_HMM_MIRROR=");
    let text = tree.refusal(RUN, 1);
    let config = format!("./coax config {}", tree.path().display());
    for part in [
        "  CONFIG_RUST — The driver is written in Rust\n",
        "  CONFIG_HMM_MIRROR — ",
        config.as_str(),
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert_eq!(text.lines().count(), 4, "{text}");
    let listed = coax(&["config", "--list"]).arg(tree.path()).output();
    let listed = String::from_utf8_lossy(&listed.expect("it starts").stdout).into_owned();
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn compilers_that_are_not_what_they_were_are_named_with_both_versions() {
    let tree = Tree::new();
    let here = version_here();
    let built_by_it = tree.read("include/config/auto.conf");
    tree.write(
        "include/config/auto.conf",
        built_by_it.replace(&here, "an old one"),
    );
    let text = tree.refusal(RUN, 1);
    assert!(
        text.contains(&format!("was an old one, and now it is {here}")),
        "{text}"
    );
    tree.write("init/.main.o.cmd", "savedcmd_x := ccache gcc-of-old -c x\n");
    let text = tree.refusal(RUN, 1);
    assert!(text.contains("by ccache gcc-of-old (an old one)"), "{text}");
    assert!(text.contains("not here any more"), "{text}");
}

#[test]
fn rustup_is_asked_for_the_toolchain_of_the_tree_and_not_that_of_the_checkout() {
    let tree = Tree::new();
    let here = version_here();
    tree.write("rust/.core.o.cmd", "savedcmd_x := rustc-of-rustup -c x\n");
    let config = tree.read("include/config/auto.conf");
    let rustc = format!("CONFIG_RUSTC_VERSION_TEXT=\"{here}\"");
    let config = config.replace(&rustc, "CONFIG_RUSTC_VERSION_TEXT=\"rustc of the tree\"");
    tree.write("include/config/auto.conf", &config);
    let folder = fs::canonicalize(tree.path()).expect("it is there");
    let rustup = format!(
        "echo \"${{RUSTUP_TOOLCHAIN-$(test \"$PWD\" = {} && echo tree)}} (a reason)\"",
        folder.display()
    );
    let programs = Programs::new(&[
        ("rustc-of-rustup", "echo \"rustc of the $RUSTUP_TOOLCHAIN\""),
        ("rustup", &rustup),
    ]);
    let mut command = coax(RUN);
    command
        .args(["--qemu", "/etc/passwd", "--kernel-tree"])
        .arg(tree.path());
    command
        .env("PATH", programs.path())
        .env("RUSTUP_TOOLCHAIN", "checkout");
    let text = errors(&mut command, 1);
    // The tree is no problem, then.
    assert!(text.contains("/etc/passwd"), "{text}");
    tree.write(
        "include/config/auto.conf",
        config.replace("of the tree", "of old"),
    );
    let text = errors(&mut command, 1);
    assert!(
        text.contains("was rustc of old, and now it is rustc of the tree"),
        "{text}"
    );
}

#[test]
fn a_folder_that_was_built_elsewhere_is_no_place_for_make() {
    let (source, tree, copy) = (Tree::new(), Tree::new(), Tree::new());
    tree.is_built_from(source.path());
    let mut command = coax(RUN);
    command
        .args(["--qemu", "/etc/passwd", "--kernel-tree"])
        .arg(tree.path());
    let text = errors(&mut command, 1);
    assert!(text.contains("/etc/passwd"), "{text}");
    copy.write("Makefile", tree.read("Makefile"));
    let [from, to] = [source.path(), copy.path()].map(Path::display);
    let text = copy.refusal(RUN, 1);
    assert_eq!(text.lines().count(), 1, "{text}");
    let told = format!("is a copy of {}", tree.path().display());
    assert!(text.contains(&told), "{text}");
    assert!(
        text.contains(&format!("make -C {from} O={to} bzImage")),
        "{text}"
    );
    // Make would configure the other one.
    let before = files(copy.path());
    let text = errors(coax(&["config"]).arg(copy.path()), 1);
    assert!(text.contains("is a copy of"), "{text}");
    assert_eq!(files(copy.path()), before);
}

#[test]
fn a_tree_that_is_to_be_built_and_cannot_be_is_nothing_to_test() {
    let tree = Tree::new();
    // Its make takes every configuration as it is, and builds nothing.
    tree.write(
        "Makefile",
        format!("{SOURCE}olddefconfig:\n\nbzImage modules:\n\tfalse\n"),
    );
    let text = errors(
        coax(&["demo", "--build", "--kernel-tree"]).arg(tree.path()),
        125,
    );
    assert!(text.contains("failed: make ended with"), "{text}");
    tree.without(".config", "CONFIG_RUST=");
    let text = errors(
        coax(&["test", "hmm", "--build", "--kernel-tree"]).arg(tree.path()),
        125,
    );
    assert!(text.contains("CONFIG_RUST"), "{text}");
    // Nothing is built for a QEMU that cannot do.
    let text = errors(
        coax(&["run", "--build", "--qemu", "/etc/passwd", "--kernel-tree"]).arg(tree.path()),
        125,
    );
    assert!(
        text.contains("/etc/passwd") && !text.contains("CONFIG_RUST"),
        "{text}"
    );
    tree.remove(".config");
    let text = errors(
        coax(&["bench", "--build", "--kernel-tree"]).arg(tree.path()),
        125,
    );
    assert!(text.contains("is not configured"), "{text}");
}

#[test]
fn a_tree_that_goes_while_it_is_built_is_missed_by_name() {
    // Make may miss it or not.
    for end in ["true", "false"] {
        let tree = Tree::new();
        let rule = format!("bzImage modules:\n\trm -rf $(CURDIR); {end}\n");
        tree.write("Makefile", format!("{SOURCE}olddefconfig:\n\n{rule}"));
        let text = errors(
            coax(&["run", "--build", "--kernel-tree"]).arg(tree.path()),
            125,
        );
        let told = format!("coax: {} is not there any more\n", tree.path().display());
        assert!(text.ends_with(&told), "{text}");
        assert!(!text.contains("make ended"), "{text}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_wrong_usage() {
    let tree = Tree::new();
    let gone = tree.path().join("gone");
    for words in [
        &["run", "--kernel-tree"][..],
        &["demo", "--kernel-tree"],
        &["config"],
    ] {
        let text = errors(coax(words).arg(&gone), 2);
        assert!(
            text.contains("gone") && text.contains("No such file"),
            "{text}"
        );
    }
    let text = errors(
        coax(&["run", "--kernel-tree"]).arg(tree.path().join(".config")),
        2,
    );
    assert!(text.contains("is no folder"), "{text}");
}

#[test]
fn folders_that_makefiles_cannot_use_are_wrong_usage() {
    let top = tempfile::tempdir().expect("a temporary folder");
    for name in [&b"my linux"[..], b"a:b", b"it's", b"a#1", b"linux-\xff"] {
        let odd = top.path().join(OsStr::from_bytes(name));
        fs::create_dir(&odd).expect("writable");
        for command in [&mut coax(&["run", "--kernel-tree"]), &mut coax(&["config"])] {
            let text = errors(command.arg(&odd), 2);
            let shown = odd.to_string_lossy().into_owned();
            assert!(text.contains(&shown), "{text}");
            assert!(
                text.contains("a blank, a colon or another character"),
                "{text}"
            );
        }
        assert_eq!(files(&odd), []);
    }
}

#[test]
fn a_configuration_gets_what_it_lacks_and_a_copy_of_what_it_was() {
    let tree = Tree::new();
    tree.without(".config", "CONFIG_RUST=");
    tree.without(".config", "CONFIG_FUTEX=");
    let before = tree.read(".config");
    // Rules that do not let Rust on.
    tree.write(
        "Makefile",
        format!("{SOURCE}olddefconfig:\n\tsed -i /CONFIG_RUST=/d .config\n"),
    );
    let output = coax(&["config"])
        .arg(tree.path())
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("refused  CONFIG_RUST — "), "{told}");
    assert!(told.contains("added    CONFIG_FUTEX — "), "{told}");
    assert_eq!(tree.read(".config.before-coax"), before);
    assert_eq!(tree.read(".config"), before + "CONFIG_FUTEX=y\n");
}

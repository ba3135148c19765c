// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel trees of users that cannot be used: one line that says what to do, and nothing changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coax_images::kernel::merge;

/// A folder that looks like a tree in which Linux 7.2 was built, but for what a test takes away.
struct Tree(tempfile::TempDir);

/// Whatever compiler there is.
const HERE: &str = "sh";

impl Tree {
    fn new() -> Self {
        let tree = Tree(tempfile::tempdir().expect("a temporary folder"));
        tree.write("Makefile", "VERSION = 7\nPATCHLEVEL = 2\n");
        tree.write(
            ".config",
            "# Linux/x86 7.2.0 Kernel Configuration\nCONFIG_X86_64=y\n",
        );
        let lacking = merge::lacking(tree.path(), false).expect("it is configured");
        let lines = lacking.iter().map(|lack| format!("{}\n", lack.line));
        let config = lines.fold(tree.read(".config"), |text, line| text + &line);
        tree.write(".config", &config);
        let versions = "CONFIG_CC_VERSION_TEXT=an old one\nCONFIG_RUSTC_VERSION_TEXT=an old one\n";
        tree.write("include/config/auto.conf", &(config + versions));
        tree.write("include/config/kernel.release", "7.2.0-mine\n");
        for file in [
            "rust/.core.o.cmd",
            "init/.main.o.cmd",
            "scripts/basic/.fixdep.cmd",
        ] {
            tree.write(file, &format!("savedcmd_x := {HERE} -c x\n"));
        }
        for file in [
            "scripts/.generate_rust_target.cmd",
            "rust/bindings/.bindings_generated.rs.cmd",
        ] {
            tree.write(file, &format!("savedcmd_x := {HERE} -c x\n"));
        }
        for file in [
            "include/generated/utsrelease.h",
            "include/generated/utsversion.h",
            "Module.symvers",
            "vmlinux",
            "arch/x86/boot/bzImage",
            "rust/libkernel.rmeta",
        ] {
            tree.write(file, "");
        }
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(path, text).expect("writable");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).expect("it is there")
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("it is there");
    }

    /// Takes the lines with `text` out of a file.
    fn without(&self, name: &str, text: &str) {
        let all = self.read(name);
        let kept = all.lines().filter(|line| !line.contains(text));
        let kept = kept.fold(String::new(), |text, line| text + line + "\n");
        assert_ne!(kept, all, "{text}");
        self.write(name, &kept);
    }

    /// What coax says, which has to be all that happens.
    fn refusal(&self, words: &[&str], status: i32) -> String {
        let before = files(self.path());
        let mut coax = coax(words);
        coax.arg("--kernel-tree").arg(self.path());
        let text = errors(&mut coax, status);
        assert_eq!(files(self.path()), before);
        text
    }
}

/// All files with their contents.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            let contents = fs::read(&path).expect("readable");
            files.push((path, contents));
        }
    }
    files.sort();
    files
}

fn coax(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coax"));
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/tree-cache");
    command.args(words).stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", cache);
    command
}

/// What it says when it ends with `status`.
fn errors(coax: &mut Command, status: i32) -> String {
    let output = coax.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

/// Its name, what is wrong, and what has to be told.
type Case = (&'static str, fn(&Tree), &'static [&'static str]);

const RUN: &[&str] = &["--no-install", "run"];

#[test]
fn what_is_no_tree_for_this_machine_is_refused_in_one_line() {
    let cases: [Case; 8] = [
        (
            "no tree",
            |tree| tree.write("Makefile", "all:\n"),
            &["is no kernel tree", "O="],
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
            "an old kernel",
            |tree| tree.write("include/config/kernel.release", "7.1.9\n"),
            &["is Linux 7.1.9", "7.2 or later"],
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
    let text = tree.refusal(RUN, 1);
    assert!(
        text.contains("by sh (an old one)") || text.contains("when that was an old one"),
        "{text}"
    );
    tree.write("init/.main.o.cmd", "savedcmd_x := ccache gcc-of-old -c x\n");
    let text = tree.refusal(RUN, 1);
    assert!(text.contains("by ccache gcc-of-old (an old one)"), "{text}");
    assert!(text.contains("not here any more"), "{text}");
    let other = Command::new("make")
        .arg("--version")
        .output()
        .expect("make is needed here");
    let other = String::from_utf8_lossy(&other.stdout).into_owned();
    let other = other.lines().next().expect("a version");
    tree.write("init/.main.o.cmd", "savedcmd_x := make -c x\n");
    let text = tree.refusal(RUN, 1);
    assert!(
        text.contains(&format!("was an old one, and now it is {other}")),
        "{text}"
    );
}

#[test]
fn a_tree_that_is_to_be_built_and_cannot_be_is_nothing_to_test() {
    let tree = Tree::new();
    // Its make takes every configuration as it is, and builds nothing.
    tree.write(
        "Makefile",
        "VERSION = 7\nPATCHLEVEL = 2\nolddefconfig:\n\nbzImage modules:\n\tfalse\n",
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
}

#[test]
fn folders_that_makefiles_cannot_use_are_wrong_usage() {
    let top = tempfile::tempdir().expect("a temporary folder");
    let odd = top.path().join("my linux");
    fs::create_dir(&odd).expect("writable");
    for command in [&mut coax(&["run", "--kernel-tree"]), &mut coax(&["config"])] {
        let text = errors(command.arg(&odd), 2);
        assert!(
            text.contains("my linux") && text.contains("a blank"),
            "{text}"
        );
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
        "VERSION = 7\nPATCHLEVEL = 2\nolddefconfig:\n\tsed -i /CONFIG_RUST=/d .config\n",
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A folder that looks like a kernel tree, and programs that look like others.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coax_images::kernel::merge;

/// A folder that looks like a tree in which Linux 7.2 was built, but for what a test takes away.
pub struct Tree(tempfile::TempDir);

/// Stands for each compiler: a program that every machine has on which a kernel was built.
pub const HERE: &str = "make";
pub const RELEASE: &str = "7.2.0-mine";
pub const MADE: &str = "#2 SMP Thu Jan  1 00:00:00 UTC 1970";
pub const SOURCE: &str = "# SPDX\nVERSION = 7\nPATCHLEVEL = 2\n";

/// What [`HERE`] says of its version.
pub fn version_here() -> String {
    let output = Command::new(HERE).arg("--version").output();
    let told = String::from_utf8_lossy(&output.expect("it is needed here").stdout).into_owned();
    told.lines().next().expect("a version").to_owned()
}

/// An image as its boot loader sees it, which calls itself so.
pub fn image(version: &str) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x200_u16.to_le_bytes());
    image.extend(version.as_bytes());
    image.push(0);
    image
}

impl Tree {
    pub fn new() -> Self {
        let tree = Tree(tempfile::tempdir().expect("a temporary folder"));
        tree.write("Makefile", SOURCE);
        tree.write(
            ".config",
            "# Linux/x86 7.2.0 Kernel Configuration\nCONFIG_X86_64=y\n",
        );
        let lacking = merge::lacking(tree.path(), false).expect("it is configured");
        let lines = lacking.iter().map(|lack| format!("{}\n", lack.line));
        let config = lines.fold(tree.read(".config"), |text, line| text + &line);
        tree.write(".config", &config);
        let here = version_here();
        let versions =
            format!("CONFIG_CC_VERSION_TEXT=\"{here}\"\nCONFIG_RUSTC_VERSION_TEXT=\"{here}\"\n");
        let command = format!("savedcmd_x := {HERE} -c x\n");
        let image = image(&format!("{RELEASE} (me@here) {MADE}"));
        for (file, contents) in [
            ("include/config/auto.conf", (config + &versions).as_bytes()),
            (
                "include/config/kernel.release",
                format!("{RELEASE}\n").as_bytes(),
            ),
            ("include/generated/utsrelease.h", b""),
            (
                "include/generated/utsversion.h",
                format!("#define UTS_VERSION \"{MADE}\"\n").as_bytes(),
            ),
            ("Module.symvers", b"0x0\tone\tvmlinux\tEXPORT_SYMBOL\t\n"),
            ("System.map", b"ffffffff82000000 r __ksymtab_one\n"),
            ("vmlinux", b""),
            ("arch/x86/boot/bzImage", &image),
            ("rust/libkernel.rmeta", b""),
            ("rust/.core.o.cmd", command.as_bytes()),
            (
                "rust/bindings/.bindings_generated.rs.cmd",
                command.as_bytes(),
            ),
            ("init/.main.o.cmd", command.as_bytes()),
            ("scripts/basic/.fixdep.cmd", command.as_bytes()),
            ("scripts/.generate_rust_target.cmd", command.as_bytes()),
        ] {
            tree.write(file, contents);
        }
        tree
    }

    /// Makes it a folder that make got as `O=`, with this source.
    pub fn is_built_from(&self, source: &Path) {
        self.write("Makefile", output_makefile(source, self.path()));
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(path, contents).expect("writable");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).expect("it is there")
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("it is there");
    }

    /// Takes the lines with `text` out of a file.
    pub fn without(&self, name: &str, text: &str) {
        let all = self.read(name);
        let kept = all.lines().filter(|line| !line.contains(text));
        let kept = kept.fold(String::new(), |text, line| text + line + "\n");
        assert_ne!(kept, all, "{text}");
        self.write(name, &kept);
    }

    /// What coax says, which has to be all that happens.
    pub fn refusal(&self, words: &[&str], status: i32) -> String {
        let before = files(self.path());
        let mut coax = coax(words);
        coax.arg("--kernel-tree").arg(self.path());
        let text = errors(&mut coax, status);
        assert_eq!(files(self.path()), before);
        text
    }
}

/// As make leaves it in a folder that it got as `O=`.
pub fn output_makefile(source: &Path, folder: &Path) -> String {
    let (source, folder) = (source.display(), folder.display());
    format!(
        "# Automatically generated by {source}/Makefile: don't edit\nexport KBUILD_OUTPUT = {folder}\n\
         include {source}/Makefile\n"
    )
}

/// All files and folders with times of their last change, and contents.
pub fn files(folder: &Path) -> Vec<(PathBuf, [i64; 2], Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let data = fs::symlink_metadata(&path).expect("readable");
        let contents = if data.is_dir() {
            files.extend(self::files(&path));
            Vec::new()
        } else {
            fs::read(&path).expect("readable")
        };
        files.push((path, [data.mtime(), data.mtime_nsec()], contents));
    }
    files.sort();
    files
}

pub fn coax(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coax"));
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/tree-cache");
    command.args(words).stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", cache);
    command
}

/// What it says when it ends with `status`.
pub fn errors(coax: &mut Command, status: i32) -> String {
    let output = coax.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

/// Programs in a `PATH` of their own, before the machine's.
pub struct Programs(tempfile::TempDir);

impl Programs {
    pub fn new(programs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, script) in programs {
            // By a program of its own: a child of another test would keep a file of ours open, and the kernel
            // runs no file that somebody may write.
            let mut install = Command::new("install");
            install.args(["-m", "755", "/dev/stdin"]);
            install.arg(folder.path().join(name)).stdin(Stdio::piped());
            let mut install = install.spawn().expect("it starts");
            let mut input = install.stdin.take().expect("a pipe");
            write!(input, "#!/bin/sh\n{script}\n").expect("it reads");
            drop(input);
            assert!(install.wait().expect("it ends").success(), "{name}");
        }
        Programs(folder)
    }

    /// Where one of them is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The whole of it.
    pub fn path(&self) -> OsString {
        let others = std::env::var_os("PATH").unwrap_or_default();
        let mut path = self.0.path().as_os_str().to_owned();
        path.push(":");
        path.push(others);
        path
    }
}

/// Says that it is a QEMU with all that VMs are made of.
pub const QEMU: &str = r#"case "$*" in
--version) echo "QEMU emulator version 11.1.1" ;;
"-device "*,help) echo "${2%,help} options:" ;;
*) printf '%s\n' q35 memory-backend-memfd monitor-qmp acpi-generic-initiator ;;
esac"#;

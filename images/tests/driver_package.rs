// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's package for DKMS: what is in it, and what it says where no module can be built.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use coax_images::cache;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The compiler of the kernels below.
const RUSTC: &str = "rustc 1.85.1 (4eb161250 2025-03-15)";
/// As DKMS takes a kernel that is not meant.
const SKIPPED: i32 = 77;

fn driver() -> PathBuf {
    cache::checkout().join("guest-driver")
}

/// Makes the package in `folder`.
fn make(folder: &Path, umask: &str) -> PathBuf {
    let output = Command::new("sh")
        .args([
            "-c",
            r#"umask "$1"; exec make --silent -C "$2" deb "MO=$3""#,
        ])
        .arg("sh")
        .arg(umask)
        .arg(driver())
        .arg(folder)
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make is needed for everything here");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let file = folder.join(format!("coax-dkms_{VERSION}_all.deb"));
    let shown = String::from_utf8(output.stdout).expect("text");
    assert_eq!(shown.trim_end(), file.display().to_string());
    file
}

/// The package, unpacked with what tells dpkg of it.
fn unpacked(folder: &Path) -> PathBuf {
    let file = make(folder, "022");
    let root = folder.join("root");
    let mut dpkg = Command::new("dpkg-deb");
    let status = dpkg.arg("--raw-extract").arg(file).arg(&root).status();
    assert!(status.expect("dpkg-deb").success());
    root
}

/// All files below a folder, by their names from there.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            let name = PathBuf::from(path.file_name().expect("a name"));
            found.extend(files(&path).iter().map(|file| name.join(file)));
        } else {
            found.insert(path.file_name().expect("a name").into());
        }
    }
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    fs::write(path, text).expect("writable");
}

#[test]
fn the_package_has_all_that_the_module_is_built_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = unpacked(folder.path());
    let source = root.join(format!("usr/src/coax-{VERSION}"));
    assert_eq!(files(&driver().join("src")), files(&source.join("src")));
    let main = text(&source.join("src/coax_main.rs"));
    let beside = main.lines().filter_map(|line| {
        let path = line.strip_prefix("#[path = \"../")?;
        path.strip_suffix("\"]")
    });
    let beside: Vec<&str> = beside.collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    for name in [
        &["Kbuild", "Makefile", "check-kernel.sh", "dkms/pre-build.sh"][..],
        &beside,
    ]
    .concat()
    {
        assert_eq!(text(&driver().join(name)), text(&source.join(name)));
    }
    let mode = |name| {
        let status = fs::metadata(source.join(name)).expect("it is there");
        status.permissions().mode() & 0o777
    };
    // DKMS takes no other for a script.
    assert_eq!(mode("dkms/pre-build.sh"), 0o755);
    let sums = Command::new("md5sum")
        .args(["--check", "--quiet", "DEBIAN/md5sums"])
        .current_dir(&root)
        .status();
    assert!(sums.expect("md5sum").success());
}

#[test]
fn the_package_names_its_version_and_what_it_takes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = unpacked(folder.path());
    let control = text(&root.join("DEBIAN/control"));
    for line in ["Package: coax-dkms", &format!("Version: {VERSION}")] {
        assert!(control.lines().any(|found| found == line), "{control}");
    }
    let needs = control
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "));
    let needs: Vec<&str> = needs
        .expect("a line")
        .split(", ")
        .filter_map(|package| package.split(' ').next())
        .collect();
    assert_eq!(needs, ["bindgen", "dkms", "rustc"]);
    let source = root.join(format!("usr/src/coax-{VERSION}"));
    let conf = text(&source.join("dkms.conf"));
    assert!(
        conf.contains(&format!("PACKAGE_VERSION=\"{VERSION}\"\n")),
        "{conf}"
    );
    for file in ["DEBIAN/control", "DEBIAN/postinst", "DEBIAN/prerm"] {
        let text = text(&root.join(file));
        assert!(
            !text.contains('@') || text.contains("Maintainer: "),
            "{text}"
        );
        assert!(
            !text.contains("@VERSION@") && !text.contains("@SIZE@"),
            "{text}"
        );
    }
}

#[test]
fn the_same_source_makes_the_same_package_whoever_makes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [one, other] = [("one", "022"), ("other", "077")]
        .map(|(name, umask)| make(&folder.path().join(name), umask));
    assert!(fs::read(one).expect("there") == fs::read(other).expect("there"));
}

/// A kernel's build tree that modules in Rust can be built against, as far as can be seen.
struct Kernel(tempfile::TempDir);

/// What came of a kernel.
struct Told {
    status: Option<i32>,
    log: String,
    console: String,
}

impl Kernel {
    fn new(release: &str) -> Self {
        let kernel = Kernel(tempfile::tempdir().expect("a temporary folder"));
        let script = text(&driver().join("check-kernel.sh"));
        let loops = script.replace("\\\n", "");
        let list = |name: &str| -> Vec<String> {
            let words = loops.lines().find_map(|line| {
                line.strip_prefix(&format!("for {name} in "))?
                    .strip_suffix("; do")
            });
            let words = words.expect("a loop").split_whitespace();
            words.map(str::to_owned).collect()
        };
        let options = list("option");
        let options = options.iter().map(|name| format!("CONFIG_{name}=y\n"));
        let version = format!("CONFIG_RUSTC_VERSION_TEXT=\"{RUSTC}\"\n");
        kernel.write(".config", &(options.collect::<String>() + &version));
        kernel.write("include/config/kernel.release", &format!("{release}\n"));
        kernel.write("Module.symvers", "");
        for file in list("file") {
            kernel.write(&file, "");
        }
        kernel.program("rustc", &format!("echo '{RUSTC}'"));
        kernel.program("bindgen", "echo bindgen 0.71.1");
        kernel
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("kernel")
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path().join(name), text);
    }

    /// Another program of this name than the machine's.
    fn program(&self, name: &str, what: &str) {
        let path = self.0.path().join("bin").join(name);
        write(&path, &format!("#!/bin/sh\n{what}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("writable");
    }

    /// Runs a shell's command in the driver's folder, as the package has it too, with the programs above.
    fn run(&self, command: &str) -> (Option<i32>, String) {
        let here = self.0.path();
        let path = format!("{}:/usr/bin:/bin", here.join("bin").display());
        let output = Command::new("sh")
            .args(["-c", command, "sh"])
            .args([&self.path(), &here.join("log")])
            .current_dir(driver())
            .env_remove("MAKEFLAGS")
            .env_remove("RUSTC")
            .env_remove("BINDGEN")
            .env("PATH", path)
            .output()
            .expect("sh");
        let errors = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), errors)
    }

    /// Has the package look at it as DKMS does, whose log has what its scripts write.
    fn told(&self) -> Told {
        let (status, console) =
            self.run(r#"( eval "cd . && dkms/pre-build.sh 7.3.4 $1" ) >>"$2" 2>&1"#);
        Told {
            status,
            log: text(&self.0.path().join("log")),
            console,
        }
    }

    /// Demands that it is skipped with one line, which has all these words, in the log and on the console.
    fn is_skipped(&self, words: &[&str]) {
        let told = self.told();
        assert_eq!(told.status, Some(SKIPPED), "{}", told.log);
        assert_eq!(told.log.trim(), told.console.trim());
        let lines: Vec<&str> = told.log.trim().lines().collect();
        let [head, line] = lines[..] else {
            panic!("{}", told.log);
        };
        assert_eq!(head, "coax: no module for Linux 7.3.4:");
        let tree = self.path().display().to_string();
        for word in [words, &[tree.as_str()]].concat() {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}

#[test]
fn nothing_is_said_of_a_kernel_that_has_what_it_takes() {
    for release in ["7.2", "7.2.13-coax", "7.3.4+deb13-amd64"] {
        let told = Kernel::new(release).told();
        assert_eq!(
            (told.status, &*told.log, &*told.console),
            (Some(0), "", ""),
            "{release}"
        );
    }
}

#[test]
fn headers_without_metadata_are_skipped_with_what_to_do() {
    let kernel = Kernel::new("7.3.4");
    fs::remove_dir_all(kernel.path().join("rust")).expect("it is there");
    kernel.is_skipped(&[
        "rust/libkernel.rmeta",
        "./coax build kernel --kernel debian",
    ]);
}

#[test]
fn what_a_kernel_that_is_not_built_whole_lacks_is_named() {
    let kernel = Kernel::new("7.3.4");
    for file in ["rust/libcore.rmeta", "scripts/target.json"] {
        fs::remove_file(kernel.path().join(file)).expect("it is there");
    }
    kernel.is_skipped(&["missing: rust/libcore.rmeta scripts/target.json: build the kernel"]);
}

#[test]
fn another_compiler_than_the_kernels_is_named() {
    let kernel = Kernel::new("7.3.4");
    let other = "rustc 1.85.0 (4d91de4e4 2025-02-17)";
    kernel.program("rustc", &format!("echo '{other}'"));
    kernel.is_skipped(&[RUSTC, other, "RUSTC="]);
    kernel.program("rustc", "exit 1");
    let kernel = Kernel::new("7.3.4");
    kernel.program("rustc", "exit 1");
    kernel.is_skipped(&["rustc cannot be run", RUSTC]);
    let kernel = Kernel::new("7.3.4");
    kernel.program("bindgen", "exit 1");
    kernel.is_skipped(&["bindgen cannot be run"]);
}

#[test]
fn other_kernels_than_those_known_are_skipped() {
    // One line, though such a kernel lacks more.
    let kernel = Kernel::new("6.12.118+deb13-amd64");
    fs::remove_dir_all(kernel.path().join("rust")).expect("it is there");
    kernel.write(".config", "CONFIG_MODULES=y\n");
    kernel.is_skipped(&["Linux 6.12.118+deb13-amd64 is older than 7.2"]);
    for release in ["7.4.0-rc1", "7.10.2", "10.0"] {
        let kernel = Kernel::new(release);
        kernel.is_skipped(&[&format!("Linux {release} is newer than 7.3")]);
        // Who asks for it can try.
        let (status, errors) = kernel.run(r#"exec make --silent check "KDIR=$1""#);
        assert_eq!(status, Some(0), "{errors}");
        assert!(errors.contains("is newer than 7.3"), "{errors}");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that VMs and their tests are made of in one file, for machines that build nothing.
//!
//! The file unpacks to one folder: `coax`, the programs of the tests, QEMU with its firmware and libraries, the
//! back end, the kernel, the guest, and `archive.json`, which says what is what. A program that finds
//! `archive.json` beside itself takes all from there, and asks neither the cache nor the checkout.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::images::{Images, Which};
use crate::tool;

/// Says what is what.
const MANIFEST: &str = "archive.json";
/// The folder that an archive unpacks to.
const FOLDER: &str = "coax-archive";
/// Libraries of QEMU and virtiofsd.
const LIBRARIES: &str = "lib";
/// Serves a tree to a guest.
const VIRTIOFSD: &str = "virtiofsd";
/// Libraries that a machine has its own of: they go with its kernel and its dynamic linker.
const OF_THE_MACHINE: &[&str] = &[
    "libc.so",
    "libm.so",
    "libdl.so",
    "libpthread.so",
    "librt.so",
    "libresolv.so",
    "libgcc_s.so",
    "ld-linux",
];

/// An archive's folder.
#[derive(Clone, Debug)]
pub struct Archive {
    folder: PathBuf,
    manifest: Manifest,
}

/// What an archive has; paths are below its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    /// The words that name kernel and QEMU on a command line.
    which: Vec<String>,
    images: Images,
}

/// The archive that this program is in, if it is in one.
///
/// # Errors
///
/// Its `archive.json` cannot be read.
pub fn here() -> Result<Option<Archive>> {
    let program = std::env::current_exe().context("Where this program is")?;
    let folder = program.parent().context("This program is nowhere")?;
    Archive::open(folder)
}

/// The libraries that this program needs to start, if it is one of the archive's.
pub fn libraries_of(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    let libraries = folder.join(LIBRARIES);
    (folder.join(MANIFEST).is_file() && libraries.is_dir()).then_some(libraries)
}

impl Archive {
    /// The archive in this folder, if there is one.
    ///
    /// # Errors
    ///
    /// Its `archive.json` cannot be read.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Ok(None);
        }
        let context = || format!("Cannot read {}", path.display());
        let text = fs::read_to_string(&path).with_context(context)?;
        Ok(Some(Archive {
            folder: folder.to_owned(),
            manifest: serde_json::from_str(&text).with_context(context)?,
        }))
    }

    /// Its images. They go without saying; whoever names a kernel or a QEMU has to mean these.
    ///
    /// # Errors
    ///
    /// Others are named.
    pub fn images(&self, which: &Which) -> Result<Images> {
        let Manifest { which: own, images } = &self.manifest;
        let named = words(which);
        ensure!(
            named == *own || named == words(&Which::default()),
            "This archive has {}, and builds no {}",
            own.join(" "),
            named.join(" ")
        );
        let images = images.clone().moved(|path| self.folder.join(path));
        images.meant_by(which)
    }

    /// What it has, in one line.
    pub fn describe(&self) -> String {
        let Images {
            kernel_part: kernel,
            qemu_part: qemu,
            ..
        } = &self.manifest.images;
        let folder = self.folder.display();
        format!(
            "{folder}: Linux {} ({}), QEMU {} ({})",
            kernel.version, kernel.source, qemu.version, qemu.source
        )
    }

    /// A program of it.
    ///
    /// # Errors
    ///
    /// It has no such program.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let program = self.folder.join(name);
        ensure!(program.is_file(), "This archive has no {name}");
        Ok(program)
    }

    /// What serves trees to guests.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn virtiofsd(&self) -> Result<PathBuf> {
        self.program(VIRTIOFSD)
    }
}

/// Writes an archive of these images and programs to `file`, whose name's end says how it is compressed, as tar's
/// option `--auto-compress` knows it.
///
/// # Errors
///
/// QEMU or the kernel is not built here, or the file cannot be written.
pub fn write(
    file: &Path,
    which: &Which,
    images: &Images,
    virtiofsd: &Path,
    programs: &[PathBuf],
) -> Result<()> {
    ensure!(
        !images.firmware.is_empty(),
        "An archive takes --qemu ours: another has its firmware where this machine keeps it"
    );
    let parent = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let staging = tempfile::tempdir_in(parent);
    let staging = staging.with_context(|| format!("Cannot write in {}", parent.display()))?;
    let folder = staging.path().join(FOLDER);
    let place = Place::new(&folder)?;
    let mut linked = BTreeSet::new();
    for program in [virtiofsd, &images.qemu] {
        linked.extend(libraries(program)?);
    }
    for library in linked {
        place.take(&library, LIBRARIES)?;
    }
    for program in programs.iter().map(PathBuf::as_path).chain([virtiofsd]) {
        place.take(program, "")?;
    }
    let mut problem = None;
    let images = images.clone().moved(|path| {
        let taken = if path.is_dir() {
            place.take_folder(&path)
        } else {
            place.take(&path, "")
        };
        taken.unwrap_or_else(|error| {
            problem.get_or_insert(error);
            path
        })
    });
    if let Some(error) = problem {
        return Err(error);
    }
    let manifest = Manifest {
        which: words(which),
        images,
    };
    let text = serde_json::to_string_pretty(&manifest)?;
    fs::write(folder.join(MANIFEST), text).context("Cannot write the archive's list")?;

    let name = file.file_name().context("The archive needs a name")?;
    let part = staging.path().join(name);
    let mut tar = Command::new("tar");
    tar.arg("--create")
        .arg("--auto-compress")
        .arg("--file")
        .arg(&part);
    tar.args(["--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg("--directory").arg(staging.path()).arg(FOLDER);
    tool::output_of(&mut tar).context("Packing the archive")?;
    fs::rename(&part, file).with_context(|| format!("Cannot write {}", file.display()))
}

fn words(which: &Which) -> Vec<String> {
    let words = [which.kernel.words(), which.qemu.words()].concat();
    let words = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned());
    words.collect()
}

/// The libraries that the dynamic linker finds for a program, without those of the machine.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = tool::output_of(Command::new("ldd").arg(program))
        .with_context(|| format!("Asking for the libraries of {}", program.display()))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, path)) = line.trim().split_once(" => ") else {
            continue;
        };
        let path = path.split(" (").next().unwrap_or(path).trim();
        if path == "not found" {
            bail!("{} needs {name}, which is not here", program.display());
        }
        if !OF_THE_MACHINE.iter().any(|own| name.starts_with(own)) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// The folder that an archive is made of.
struct Place<'a> {
    folder: &'a Path,
}

impl<'a> Place<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        let libraries = folder.join(LIBRARIES);
        fs::create_dir_all(&libraries)
            .with_context(|| format!("Cannot make {}", libraries.display()))?;
        Ok(Place { folder })
    }

    /// Copies a file, and returns where it is below the folder.
    fn take(&self, file: &Path, below: &str) -> Result<PathBuf> {
        let name = file.file_name().context("A file needs a name")?;
        let path = Path::new(below).join(name);
        fs::copy(file, self.folder.join(&path))
            .with_context(|| format!("Cannot copy {}", file.display()))?;
        Ok(path)
    }

    /// Copies the files of a folder.
    fn take_folder(&self, folder: &Path) -> Result<PathBuf> {
        let name = folder.file_name().context("A folder needs a name")?;
        let name = name.to_string_lossy();
        let to = self.folder.join(&*name);
        fs::create_dir_all(&to).with_context(|| format!("Cannot make {}", to.display()))?;
        let context = || format!("Cannot read {}", folder.display());
        for entry in fs::read_dir(folder).with_context(context)? {
            self.take(&entry.with_context(context)?.path(), &name)?;
        }
        Ok(PathBuf::from(&*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(folder: &Path) -> Images {
        let file = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, name).expect("it can be written");
            path
        };
        let firmware = folder.join("firmware");
        fs::create_dir(&firmware).expect("it can be made");
        fs::write(firmware.join("bios.bin"), "bios").expect("it can be written");
        let mut images = Images::for_tests();
        images.kernel = file("bzImage");
        // Something that the dynamic linker knows.
        images.qemu = folder.join("qemu-system-x86_64");
        fs::copy("/bin/sh", &images.qemu).expect("every machine has it");
        images.initramfs = file("initramfs.cpio");
        images.device = file("vhost-device-coax");
        images.hmm_tests = file("hmm-tests");
        images.engine_bench = file("coax-engine-bench");
        images.firmware = vec![firmware];
        images
    }

    #[test]
    fn an_archive_has_everything_wherever_it_is_unpacked() {
        let here = tempfile::tempdir().expect("a temporary folder");
        let there = tempfile::tempdir().expect("a temporary folder");
        let images = images(here.path());
        let file = here.path().join("coax.tar.gz");
        let program = here.path().join("coax");
        fs::write(&program, "coax").expect("it can be written");
        let which = Which::default();
        write(&file, &which, &images, &images.qemu, &[program]).expect("it can be packed");
        // Nothing else is left, and nothing of here is used.
        assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 9);
        let mut tar = Command::new("tar");
        tar.arg("xf").arg(&file).arg("-C").arg(there.path());
        tool::output_of(&mut tar).expect("tar unpacks it");
        drop(here);

        let folder = there.path().join(FOLDER);
        let archive = Archive::open(&folder).expect("readable").expect("there");
        let found = archive.images(&which).expect("what it has");
        for (path, text) in [
            (&found.kernel, "bzImage"),
            (&found.initramfs, "initramfs.cpio"),
            (&found.device, "vhost-device-coax"),
            (&found.hmm_tests, "hmm-tests"),
            (&found.engine_bench, "coax-engine-bench"),
            (&found.firmware[0].join("bios.bin"), "bios"),
            (&archive.program("coax").expect("it is there"), "coax"),
        ] {
            assert!(path.starts_with(&folder), "{}", path.display());
            assert_eq!(fs::read_to_string(path).expect("it is there"), text);
        }
        assert_eq!(libraries_of(&found.qemu), Some(folder.join(LIBRARIES)));
        assert_eq!(libraries_of(Path::new("/bin/sh")), None);
        let error = archive.program("coax-soak").expect_err("it was not packed");
        assert!(error.to_string().contains("coax-soak"), "{error}");
        assert!(Archive::open(there.path()).expect("readable").is_none());
    }

    #[test]
    fn another_kernel_than_the_archives_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let manifest = Manifest {
            which: vec![
                "--kernel".into(),
                "debug".into(),
                "--qemu".into(),
                "ours".into(),
            ],
            images: Images::for_tests(),
        };
        let text = serde_json::to_string(&manifest).expect("plain data");
        fs::write(folder.path().join(MANIFEST), text).expect("it can be written");
        let archive = Archive::open(folder.path())
            .expect("readable")
            .expect("there");
        archive.images(&Which::default()).expect("nothing is named");
        let mut which = Which::default();
        which.kernel.kernel = Some(clap::ValueEnum::from_str("7.3", false).expect("a kernel"));
        let error = archive.images(&which).expect_err("it has another");
        let text = error.to_string();
        assert!(
            text.contains("--kernel debug") && text.contains("--kernel 7.3"),
            "{text}"
        );
    }

    #[test]
    fn libraries_of_the_machine_stay_where_they_are() {
        let found = libraries(Path::new("/bin/sh")).expect("the linker knows");
        let is_libc = |path: &PathBuf| path.to_string_lossy().contains("libc.so");
        assert!(!found.iter().any(is_libc), "{found:?}");
        let error = write(
            Path::new("/nonexistent/a.tar"),
            &Which::default(),
            &Images {
                firmware: vec!["/".into()],
                ..Images::for_tests()
            },
            Path::new("/bin/sh"),
            &[],
        );
        let error = error.expect_err("there is no such folder");
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}

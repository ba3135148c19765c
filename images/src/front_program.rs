// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU's name and options, with the device: where that program (`src/front`) lies, and what it is told.
//!
//! It has no options of its own, so a file beside it says which QEMU it becomes and which back end it starts.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::cargo;
use crate::images::Images;
use crate::qemu::Form;

/// Name of the program, and of the program it stands for.
const PROGRAM: &str = "qemu-system-x86_64";
/// The back end beside it.
const BACK_END_PROGRAM: &str = "vhost-device-coax";
/// The file beside it.
const SETTINGS: &str = "coax.json";
/// Variables that say otherwise than the file.
const QEMU: &str = "COAX_QEMU";
const BACK_END: &str = "COAX_BACK_END";

/// Contents of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The QEMU.
    pub qemu: PathBuf,
    /// Folders for its `-L`.
    #[serde(default)]
    pub firmware: Vec<PathBuf>,
    /// How it shows the device.
    #[serde(default)]
    pub form: Form,
    /// The back end.
    pub back_end: PathBuf,
}

impl Settings {
    /// Those of this program: paths that are not absolute are meant from its folder.
    ///
    /// # Errors
    ///
    /// There is no such file, or it says something else.
    pub fn here() -> Result<Self> {
        let program = env::current_exe().context("Cannot find this program")?;
        let folder = program.parent().unwrap_or(Path::new("/"));
        let mut settings = Self::of(folder)?;
        for (variable, path) in [
            (QEMU, &mut settings.qemu),
            (BACK_END, &mut settings.back_end),
        ] {
            if let Some(other) = env::var_os(variable) {
                *path = other.into();
            }
        }
        Ok(settings)
    }

    /// Those in `folder`.
    fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(SETTINGS);
        let text = fs::read(&path).with_context(|| {
            format!(
                "Cannot read {}, which says what to start: `coax build front` makes it",
                path.display()
            )
        })?;
        let said: Settings = serde_json::from_slice(&text)
            .with_context(|| format!("Cannot understand {}", path.display()))?;
        Ok(Settings {
            qemu: folder.join(said.qemu),
            firmware: said.firmware.iter().map(|path| folder.join(path)).collect(),
            back_end: folder.join(said.back_end),
            ..said
        })
    }
}

/// Builds the program for these images, in a place that stays the same for a QEMU of this name.
///
/// # Errors
///
/// Those of cargo, with the log's place, and of writing.
pub fn install(images: &Images) -> Result<PathBuf> {
    let name = match images.qemu_part.source.as_str() {
        name if name.contains('/') => "program",
        name => name,
    };
    let folder = cache::root()?.join("front").join(name);
    cache::make_folder(&folder)?;
    let mut build = cargo::command(&["build", "--release", "--locked"]);
    build.args(["--package", "coax-images", "--bin", PROGRAM]);
    let built = cargo::build(
        build,
        "Building the front program",
        &folder.join("build.log"),
        |_| {},
    )?;
    let settings = Settings {
        qemu: images.qemu.clone(),
        firmware: images.firmware.clone(),
        form: images.form,
        back_end: BACK_END_PROGRAM.into(),
    };
    put(&folder, SETTINGS, |path| {
        fs::write(path, serde_json::to_vec_pretty(&settings)?)
    })?;
    // The cache forgets guests in time, with their back ends.
    put(&folder, BACK_END_PROGRAM, |path| {
        fs::copy(&images.device, path).map(drop)
    })?;
    let program = built.file(PROGRAM)?;
    put(&folder, PROGRAM, |path| fs::copy(program, path).map(drop))?;
    Ok(folder.join(PROGRAM))
}

/// Writes a file and puts it in its place whole: somebody may be starting the one that is there.
fn put(folder: &Path, name: &str, write: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
    let new = folder.join(format!("{name}.new"));
    let written = write(&new).and_then(|()| fs::rename(&new, folder.join(name)));
    written.with_context(|| format!("Cannot write {}", folder.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_meant_from_the_programs_folder() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let text =
            r#"{"qemu":"lib/qemu","firmware":["share"],"back_end":"/usr/bin/vhost-device-coax"}"#;
        fs::write(folder.path().join(SETTINGS), text)?;
        let settings = Settings::of(folder.path())?;
        assert_eq!(settings.qemu, folder.path().join("lib/qemu"));
        assert_eq!(settings.firmware, [folder.path().join("share")]);
        assert_eq!(settings.back_end, Path::new("/usr/bin/vhost-device-coax"));
        assert_eq!(settings.form, Form::OneFunction);
        Ok(())
    }

    #[test]
    fn a_missing_file_is_named_with_what_makes_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let error = Settings::of(folder.path()).expect_err("no file");
        assert!(
            format!("{error:#}").contains("coax build front"),
            "{error:#}"
        );
        Ok(())
    }
}

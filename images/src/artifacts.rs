// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads `artifacts.toml`: what is fetched, and what it must be.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::cache::sha256_file;

/// The file's text; its contents are inputs of the builds that use them.
const TEXT: &str = include_str!("../artifacts.toml");

/// Everything that is fetched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifacts {
    /// Sources of QEMU, best first.
    pub qemu: Vec<Artifact>,
    /// The guest kernels, by version of Linux.
    pub linux: BTreeMap<String, Linux>,
    /// Sources of SQLite, best first.
    pub sqlite: Vec<Artifact>,
    /// Programs that cargo builds.
    #[serde(rename = "crate")]
    pub crates: Vec<Crate>,
}

/// A version of Linux.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linux {
    /// Its source, best release first.
    pub sources: Vec<Artifact>,
    /// Where it comes from when no pinned one is to be had.
    pub series: Series,
}

/// A file on a Debian mirror.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Version of what is in it.
    pub version: String,
    /// Path below the mirror's base.
    pub pool: String,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Length, for the estimate of a download.
    #[serde(default)]
    pub bytes: u64,
}

/// A package of which the newest version will do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Its name.
    pub package: String,
    /// The suite it is looked for in.
    pub suite: String,
}

/// A program on the registry of crates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not what was pinned.
    #[error(
        "{path} is refused: its SHA-256 is {actual}, {expected} is pinned. Remove it to have it \
         fetched again"
    )]
    Checksum {
        /// The file.
        path: String,
        /// What was pinned.
        expected: String,
        /// What it has.
        actual: String,
    },
    /// It cannot be read.
    #[error("{0:#}")]
    Unreadable(anyhow::Error),
}

impl Artifacts {
    /// Those of this checkout.
    ///
    /// # Errors
    ///
    /// The file is malformed.
    pub fn pinned() -> anyhow::Result<Self> {
        toml::from_str(TEXT).map_err(|error| anyhow::anyhow!("artifacts.toml: {error}"))
    }

    /// The pinned crate `name`.
    ///
    /// # Errors
    ///
    /// None of that name is pinned.
    pub fn crate_named(&self, name: &str) -> anyhow::Result<&Crate> {
        let found = self.crates.iter().find(|entry| entry.name == name);
        found.ok_or_else(|| anyhow::anyhow!("artifacts.toml pins no crate {name}"))
    }
}

impl Artifact {
    /// Name of the file, without folders.
    pub fn file_name(&self) -> &str {
        self.pool.rsplit('/').next().unwrap_or(&self.pool)
    }

    /// Refuses a file that is not this artifact.
    ///
    /// # Errors
    ///
    /// [`Refusal`], with the file's name and both checksums.
    pub fn verify(&self, path: &Path) -> Result<(), Refusal> {
        let actual = sha256_file(path).map_err(Refusal::Unreadable)?;
        if actual == self.sha256 {
            return Ok(());
        }
        Err(Refusal::Checksum {
            path: path.display().to_string(),
            expected: self.sha256.clone(),
            actual,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_artifacts_are_well_formed() {
        let artifacts = Artifacts::pinned().expect("part of the checkout");
        let Artifacts {
            qemu,
            linux,
            sqlite,
            ..
        } = &artifacts;
        let linux = linux.values().flat_map(|linux| &linux.sources);
        for artifact in qemu.iter().chain(linux).chain(sqlite) {
            assert!(artifact.pool.starts_with("pool/"), "{}", artifact.pool);
            assert_eq!(artifact.sha256.len(), 64, "{}", artifact.pool);
        }
        for name in ["bindgen-cli", "virtiofsd"] {
            assert!(artifacts.crate_named(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn wrong_checksum_is_refused_by_name_with_both_sums() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("source.tar");
        std::fs::write(&path, "abc").expect("writable");
        let mut artifact = Artifact {
            version: "1".into(),
            pool: "pool/source.tar".into(),
            // Of "abc", from FIPS 180-2, appendix B.1.
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
            bytes: 3,
        };
        assert!(artifact.verify(&path).is_ok());
        artifact.sha256 = "0".repeat(64);
        let text = artifact
            .verify(&path)
            .expect_err("another sum is pinned")
            .to_string();
        for part in ["source.tar", "refused", "ba7816bf", "0000"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}

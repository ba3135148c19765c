// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Brings pinned files onto this machine, from the mirror that its own apt is configured for.
//!
//! A file lies in the cache under its own name once its checksum was right, and beside it with
//! the ending `.part` until then. `COAX_SOURCES` names a folder that is looked at first, for
//! machines without a mirror.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::artifacts::{Artifact, Series};
use crate::cache;
use crate::debian::apt::{self, Apt};
use crate::progress::Progress;
use crate::tool;

/// apt's own downloader, which knows its proxies.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// How often a download's size is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// A source archive on this machine.
#[derive(Clone, Debug)]
pub struct Source {
    /// Version of what is in it.
    pub version: String,
    /// The file.
    pub path: PathBuf,
}

/// The first of `artifacts` that is here or can be had.
///
/// # Errors
///
/// A file of the right name has the wrong checksum, or none can be had; says what was tried.
pub fn first_of(artifacts: &[Artifact]) -> Result<Source> {
    let folder = downloads()?;
    for artifact in artifacts {
        if let Some(path) = present(artifact, &folder)? {
            return Ok(Source {
                version: artifact.version.clone(),
                path,
            });
        }
    }
    let mut tried = Vec::new();
    for artifact in artifacts {
        match download(artifact, &folder) {
            Ok(path) => {
                return Ok(Source {
                    version: artifact.version.clone(),
                    path,
                })
            }
            Err(error) => tried.push(format!("{}: {error:#}", artifact.file_name())),
        }
    }
    bail!(
        "Cannot fetch a source archive:\n{}\nA folder with the archives can be named in \
         COAX_SOURCES",
        tried.join("\n")
    )
}

/// The folder for downloads.
///
/// # Errors
///
/// It cannot be made.
pub fn downloads() -> Result<PathBuf> {
    let folder = cache::root()?.join("downloads");
    cache::make_folder(&folder)?;
    Ok(folder)
}

/// The file in `COAX_SOURCES` or in the cache.
fn present(artifact: &Artifact, downloads: &Path) -> Result<Option<PathBuf>> {
    let given = std::env::var_os("COAX_SOURCES").map(PathBuf::from);
    for folder in given.iter().map(PathBuf::as_path).chain([downloads]) {
        let path = folder.join(artifact.file_name());
        if path.is_file() {
            artifact.verify(&path)?;
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Fetches from each mirror in turn.
fn download(artifact: &Artifact, folder: &Path) -> Result<PathBuf> {
    let mirrors = mirrors()?;
    if mirrors.is_empty() {
        bail!("apt knows no mirror on this machine");
    }
    // The archive, and as much again to be safe with what is unpacked beside it.
    cache::check_space(folder, (artifact.bytes >> 20) * 2, artifact.file_name())?;
    let path = folder.join(artifact.file_name());
    let part = folder.join(format!("{}.part", artifact.file_name()));
    let mut tried = Vec::new();
    for mirror in mirrors {
        let url = format!("{mirror}/{}", artifact.pool);
        if let Err(error) = download_url(&url, &part, artifact) {
            tried.push(format!("{error:#}"));
            continue;
        }
        if let Err(refusal) = artifact.verify(&part) {
            // Neither used nor resumed.
            fs::remove_file(&part).with_context(|| format!("Cannot remove {}", part.display()))?;
            tried.push(refusal.to_string());
            continue;
        }
        fs::rename(&part, &path).with_context(|| format!("Cannot write {}", path.display()))?;
        return Ok(path);
    }
    bail!("{}", tried.join("; "))
}

/// Bases of the mirrors in apt's configuration, without repetition.
///
/// # Errors
///
/// There is no apt here.
pub fn mirrors() -> Result<Vec<String>> {
    let mut apt = Command::new("apt-get");
    let text = tool::output_of(apt.args(["indextargets", "--format", "$(SITE)"]))
        .context("Cannot ask apt for its mirrors")?;
    let mut sites: Vec<String> = Vec::new();
    for site in text
        .lines()
        .map(|line| line.trim_end_matches('/').to_owned())
    {
        if !site.is_empty() && !sites.contains(&site) {
            sites.push(site);
        }
    }
    Ok(sites)
}

/// One download; what is there of `part` is resumed.
fn download_url(url: &str, part: &Path, artifact: &Artifact) -> Result<()> {
    let mut command = if Path::new(APT_HELPER).is_file() {
        let mut helper = Command::new(APT_HELPER);
        helper.args(["-q", "download-file", url]).arg(part);
        helper
    } else {
        let mut curl = Command::new("curl");
        curl.args([
            "--fail",
            "--location",
            "--silent",
            "--show-error",
            "--continue-at",
            "-",
        ]);
        curl.arg("--output").arg(part).arg(url);
        curl
    };
    let program = command.get_program().to_string_lossy().into_owned();
    let mut progress = Progress::start(&format!("Fetching {}", artifact.file_name()));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("Cannot start {program}"))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let size = fs::metadata(part).map_or(0, |metadata| metadata.len());
        progress.update(size, artifact.bytes);
        thread::sleep(WATCH_INTERVAL);
    };
    if status.success() {
        progress.finish();
        return Ok(());
    }
    progress.abandon();
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut text)?;
    }
    bail!("{url}: {status}: {}", text.trim())
}

/// The newest version of a series, out of a suite that this machine's apt need not know.
///
/// # Errors
///
/// Says which step failed.
pub fn newest_of(series: &Series) -> Result<Source> {
    let progress = Progress::start(&format!(
        "Looking for {} in {}",
        series.package, series.suite
    ));
    let folder = downloads()?;
    let fetched =
        Apt::on(&[&series.suite]).and_then(|apt| apt.download(&[&series.package], &folder));
    let path = match fetched.map(|files| files.into_iter().next()) {
        Ok(Some(path)) => path,
        Ok(None) => bail!("apt fetched nothing of {}", series.package),
        Err(error) => {
            progress.abandon();
            return Err(error.context(format!("Cannot fetch {} by apt", series.package)));
        }
    };
    progress.finish();
    let version = apt::version_of(&path).unwrap_or("of unknown version");
    Ok(Source {
        version: version.to_owned(),
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> Artifact {
        Artifact {
            version: "1".into(),
            pool: "pool/a/source.tar".into(),
            // Of "abc", from FIPS 180-2, appendix B.1.
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
            bytes: 3,
        }
    }

    #[test]
    fn a_file_in_the_cache_is_used_when_right_and_refused_when_wrong() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(present(&artifact(), folder.path())
            .expect("nothing there")
            .is_none());
        let path = folder.path().join("source.tar");
        fs::write(&path, "abc").expect("writable");
        assert_eq!(
            present(&artifact(), folder.path()).expect("right"),
            Some(path.clone())
        );
        fs::write(&path, "abd").expect("writable");
        let error = present(&artifact(), folder.path()).expect_err("wrong");
        assert!(error.to_string().contains("source.tar is refused"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packages out of suites that this machine's apt need not know.
//!
//! apt gets a state of its own, so the system's lists stay as they are; Debian's signatures are checked by
//! the machine's own archive keyring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::sources;
use crate::cache;
use crate::tool;

/// apt, looking at some suites.
#[derive(Debug)]
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Looks at `suites` as they are now.
    ///
    /// # Errors
    ///
    /// There is no apt here, or a mirror cannot be reached.
    pub fn on(suites: &[&str]) -> Result<Self> {
        // Beside each other, since apt forgets what is no source any more.
        let state = cache::root()?.join("apt").join(suites.join("+"));
        for folder in ["lists/partial", "archives/partial"] {
            cache::make_folder(&state.join(folder))?;
        }
        let list = state.join("sources.list");
        cache::write_atomically(&list, sources::of_suites(suites)?.as_bytes())?;
        let apt = Apt {
            options: vec![
                format!("Dir::State::Lists={}", state.join("lists").display()),
                format!("Dir::Cache={}", state.display()),
                format!("Dir::Etc::SourceList={}", list.display()),
                "Dir::Etc::SourceParts=-".into(),
                // An unstable suite's release file may be old; its signature is what counts.
                "Acquire::Check-Valid-Until=false".into(),
                "APT::Get::List-Cleanup=0".into(),
                // What is installed here does not matter.
                "Dir::State::Status=/dev/null".into(),
            ],
        };
        tool::output_of(&mut apt.command("apt-get", &["-q", "update"]))
            .with_context(|| format!("Cannot look at {}", suites.join(" and ")))?;
        Ok(apt)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command.args(words);
        command
    }

    /// Names of packages that begin like this.
    ///
    /// # Errors
    ///
    /// Those of apt.
    pub fn names(&self, beginning: &str) -> Result<Vec<String>> {
        let text = tool::output_of(&mut self.command("apt-cache", &["pkgnames", beginning]))?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Fetches a package of a suite with all that it depends on, whatever is installed here, to `folder`.
    ///
    /// # Errors
    ///
    /// It is not in the suites, or cannot be fetched.
    pub fn download_whole(
        &self,
        package: &str,
        suite: &str,
        folder: &Path,
    ) -> Result<Vec<PathBuf>> {
        cache::make_folder(&folder.join("partial"))?;
        let words = [
            "-q",
            "--yes",
            "--download-only",
            "--no-install-recommends",
            "--target-release",
            suite,
            // Nothing is installed, so that nobody has to be kept out.
            "-o",
            "Debug::NoLocking=1",
            "-o",
        ];
        let mut install = self.command("apt-get", &words);
        install.arg(format!("Dir::Cache::archives={}", folder.display()));
        tool::output_of(install.args(["install", package]))?;
        let entries =
            fs::read_dir(folder).with_context(|| format!("Cannot read {}", folder.display()))?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(files
            .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .collect())
    }

    /// Fetches the newest of each package to `folder`; where it lies, in the order of `packages`.
    ///
    /// # Errors
    ///
    /// A package is in none of the suites, or cannot be fetched.
    pub fn download(&self, packages: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
        let words = |first: &[&'static str]| [first, packages].concat();
        let list = words(&["-q", "--print-uris", "download"]);
        let uris = tool::output_of(&mut self.command("apt-get", &list))?;
        let files = packages
            .iter()
            .map(|package| {
                let file = file_of(&uris, package)
                    .with_context(|| format!("apt names no file of {package}"))?;
                Ok(folder.join(file))
            })
            .collect::<Result<Vec<PathBuf>>>()?;
        let mut download = self.command("apt-get", &words(&["-q", "download"]));
        tool::output_of(download.current_dir(folder))?;
        Ok(files)
    }
}

/// The file of a package, out of lines `'ADDRESS' FILE LENGTH CHECKSUM`.
fn file_of<'a>(uris: &'a str, package: &str) -> Option<&'a str> {
    let mut files = uris
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    files.find(|file| {
        file.strip_prefix(package)
            .is_some_and(|rest| rest.starts_with('_'))
    })
}

/// The version of what a package file holds, without Debian's own part: `7.2.13` of
/// `linux-source-7.2_7.2.13-1_all.deb`.
pub fn version_of(file: &Path) -> Option<&str> {
    let version = file.file_name()?.to_str()?.split('_').nth(1)?;
    // An epoch's colon is written as `%3a`.
    let version = version.split_once("%3a").map_or(version, |(_, rest)| rest);
    version.split(['-', '+', '~']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_the_whole_name_of_their_package() {
        let uris = "'http://mirror.example/a-b_1_all.deb' a-b_1_all.deb 5 SHA256:00\n\
                    'http://mirror.example/a_2%3a7.1-1_all.deb' a_2%3a7.1-1_all.deb 5 SHA256:00\n";
        assert_eq!(file_of(uris, "a"), Some("a_2%3a7.1-1_all.deb"));
        assert_eq!(file_of(uris, "a-b"), Some("a-b_1_all.deb"));
        assert_eq!(file_of(uris, "b"), None);
    }

    #[test]
    fn versions_are_read_without_epoch_and_revision() {
        let version = |name: &'static str| version_of(Path::new(name));
        assert_eq!(version("/x/a_2%3a7.1-1_all.deb"), Some("7.1"));
        assert_eq!(
            version("linux-source-7.2_7.2.12-1~bpo13+1_all.deb"),
            Some("7.2.12")
        );
        assert_eq!(version("nothing"), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian's packages of a kernel: which, and what is taken out of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::EARLY_MODULES;
use crate::cache::{self, Entry};
use crate::debian::apt::{self, Apt};
use crate::kernel::config::Config;
use crate::kernel::{read, source};
use crate::progress::Progress;
use crate::tool;

/// Titles of what is done here, or their beginnings.
pub const FETCHING: &str = "Fetching Debian's kernel";
pub const UNPACKING: &str = "Unpacking Linux";
/// Where newer kernels than the release's own are, built by the release's compilers.
pub const SUITE: &str = "trixie-backports";
/// Debian's kernel for machines in clouds: the same source, with fewer drivers, which come in 38 MB of packages
/// in place of 120.
const FLAVOUR: &str = "cloud-amd64";
/// Series that the driver builds against, the best first.
pub const SERIES: &[&str] = &["7.3", "7.2"];
/// What of the source neither modules nor the kernel's own tests are built from.
const LEFT_OUT: &[&str] = &[
    "drivers/*.c",
    "drivers/gpu/drm/*/include",
    "sound/*.c",
    "fs/*.c",
    "net/*.c",
    "arch/[!x]*/*.[chS]",
    "arch/xtensa/*.[chS]",
    "Documentation/*.rst",
    "Documentation/*.yaml",
    "tools/perf/*",
    "tools/testing/selftests/[!m]*/*",
    "arch/*/boot/dts",
];

/// Package files.
#[derive(Debug)]
pub struct Packages {
    /// As `uname -r` will show it.
    version: String,
    folder: PathBuf,
    binary: PathBuf,
    modules: PathBuf,
    headers: PathBuf,
    source: PathBuf,
}

/// What was taken out of them.
#[derive(Debug)]
pub struct Stock {
    /// As `uname -r` shows it.
    pub version: String,
    /// The source, as far as it is needed.
    pub source: PathBuf,
    /// Where it will be built.
    pub build_dir: PathBuf,
    /// The kernel's configuration, as its headers have it.
    pub config: Config,
    /// The same as make settled it.
    pub auto_conf: String,
    /// What the kernel exports.
    pub symbols: String,
    /// Modules that a VM starts with.
    pub early_modules: Vec<PathBuf>,
}

impl Packages {
    /// Fetches those of the newest kernel.
    ///
    /// # Errors
    ///
    /// The mirror has no kernel that the driver builds against, or cannot be reached.
    pub fn fetch(folder: &Path, log: &Path) -> Result<Self> {
        cache::make_folder(folder)?;
        let progress = Progress::start(FETCHING);
        let apt = Apt::on(&[SUITE])?;
        let names = apt.names("linux-binary-")?;
        let (series, version) = newest(&names).with_context(|| {
            format!(
                "{SUITE} has no kernel {FLAVOUR} of the series {}",
                SERIES.join(", ")
            )
        })?;
        let [binary, modules, headers] =
            ["binary", "modules", "headers"].map(|what| format!("linux-{what}-{version}"));
        let source = format!("linux-source-{series}");
        let files = apt.download(&[&binary, &modules, &headers, &source], folder)?;
        let [binary, modules, headers, source] = files
            .try_into()
            .ok()
            .context("apt fetched another number of packages than it was asked for")?;
        let (of_binary, of_source) = (apt::version_of(&binary), apt::version_of(&source));
        ensure!(
            of_binary == of_source,
            "{SUITE} has the kernel {} and the source {}, which do not belong together: try again later",
            of_binary.unwrap_or("of no version"),
            of_source.unwrap_or("of no version")
        );
        progress.finish();
        fs::write(log, format!("Debian's kernel {version}\n"))
            .with_context(|| format!("Cannot write {}", log.display()))?;
        Ok(Packages {
            version,
            folder: folder.to_path_buf(),
            binary,
            modules,
            headers,
            source,
        })
    }

    /// Takes out of them what is needed.
    ///
    /// # Errors
    ///
    /// A package has not what is expected in it; names it.
    pub fn unpack(&self, entry: &Entry, log: &Path) -> Result<Stock> {
        let progress = Progress::start(&format!("{UNPACKING} {}", self.version));
        let unpacked = self.folder.join("unpacked");
        for package in [&self.binary, &self.modules, &self.headers] {
            source::extract(package, &unpacked, log)?;
        }
        let modules = unpacked.join("usr/lib/modules").join(&self.version);
        let image = entry.path("vmlinuz");
        copy(&modules.join("vmlinuz"), &image)?;
        let mut early_modules = Vec::new();
        for module in EARLY_MODULES {
            let name = Path::new(module).file_name().context("It has a name")?;
            let to = entry.path("early").join(name);
            cache::make_folder(&entry.path("early"))?;
            let packed = modules.join(format!("{module}.xz"));
            tool::output_into(
                Command::new("xz")
                    .args(["--decompress", "--stdout"])
                    .arg(&packed),
                &to,
            )?;
            early_modules.push(to);
        }
        let headers = unpacked
            .join("usr/src")
            .join(format!("linux-headers-{}", self.version));
        let build_dir = entry.path("build");
        cache::make_folder(&build_dir)?;
        for file in [".config", "Module.symvers"] {
            copy(&headers.join(file), &build_dir.join(file))?;
        }
        let tree = entry.path("source");
        if !tree.is_dir() {
            source::unpack(&self.source, &tree, LEFT_OUT, log)?;
        }
        let mut extract = tool::builder("sh");
        extract
            .arg(tree.join("scripts/extract-vmlinux"))
            .arg(&image);
        tool::output_into(&mut extract, &entry.path("vmlinux"))?;
        let stock = Stock {
            version: self.version.clone(),
            source: tree,
            config: Config::parse(&read(&build_dir.join(".config"))?),
            auto_conf: read(&headers.join("include/config/auto.conf"))?,
            symbols: read(&build_dir.join("Module.symvers"))?,
            build_dir,
            early_modules,
        };
        progress.finish();
        Ok(stock)
    }

    /// Removes the files.
    ///
    /// # Errors
    ///
    /// Names the folder.
    pub fn remove(self) -> Result<()> {
        let folder = self.folder;
        fs::remove_dir_all(&folder).with_context(|| format!("Cannot remove {}", folder.display()))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("Cannot copy {} to {}", from.display(), to.display()))
}

/// Series and version of the newest kernel of the flavour among packages of these names.
fn newest(names: &[String]) -> Option<(&'static str, String)> {
    SERIES.iter().find_map(|series| {
        let versions = names.iter().filter_map(|name| {
            let version = name.strip_prefix("linux-binary-")?;
            let rest = version.strip_prefix(series)?.strip_prefix('.')?;
            let (number, local) = rest.split_once('+')?;
            // `deb13-cloud-amd64`, and not `deb13-rt-amd64` or the flavour without a name.
            let (_, flavour) = local.split_once('-')?;
            let number: u32 = number.parse().ok()?;
            (flavour == FLAVOUR).then(|| (number, version.to_owned()))
        });
        versions.max().map(|(_, version)| (*series, version))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_that_with_the_highest_number_in_the_best_series() {
        let names = [
            "linux-binary-7.2.9+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.13+deb13-amd64",
            "linux-binary-7.2.14+deb13-rt-amd64",
            "linux-binary-unsigned-7.2.15+deb13-cloud-amd64",
            "linux-binary-7.20.1+deb13-cloud-amd64",
            "linux-binary-6.12.95+deb13-cloud-amd64",
        ];
        let names = names.map(str::to_owned);
        let found = newest(&names).expect("one of them");
        assert_eq!(found, ("7.2", "7.2.12+deb13-cloud-amd64".to_owned()));
        assert_eq!(newest(&names[2..]), None);
    }

    #[test]
    fn the_drivers_own_check_knows_the_same_series() {
        let script = include_str!("../../../../guest-driver/check-kernel.sh");
        let line = |name: &str| script.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(line("newest="), SERIES.first().copied());
        assert_eq!(line("oldest="), SERIES.last().copied());
    }
}

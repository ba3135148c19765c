// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The root file system of a machine that has nothing yet: what Debian calls minimal, and of this machine only
//! how packages and certificates are got.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use coax_images::tool;

/// Debian's keys, where an apt source names none.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Files by which this machine reaches others, taken along if they are there.
const TAKEN: &[&str] = &[
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/pip.conf",
    CERTIFICATES,
];
/// Whom this machine trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Whom a machine's owner trusts, a file each (`update-ca-certificates(8)`): Debian's package makes
/// [`CERTIFICATES`] of its own and these.
const OWN_CERTIFICATES: &str = "/usr/local/share/ca-certificates";
/// The end of one.
const CERTIFICATE_END: &str = "-----END CERTIFICATE-----";
/// Options of apt that say how files are fetched, not which.
const APT_OPTIONS: &[&str] = &[
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::https::CaInfo",
    "Acquire::Check-Valid-Until",
    "Acquire::Retries",
];
/// Beginnings of variables that say where something is on this machine.
const PLACES: &[&str] = &[
    "CARGO_HOME",
    "COAX_",
    "PIP_FIND_LINKS",
    "RUSTUP_",
    "TMPDIR",
    "XDG_",
];
/// Mounts what a machine has, and enters the root; `$1` is the root, `$2` the folder, `$3` what is run.
const ENTER: &str = r#"
set -eu
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
exec chroot "$1" /bin/sh -c 'cd "$1" && eval "exec $2"' sh "$2" "$3"
"#;

/// A release of Debian.
#[derive(Debug)]
pub struct Release {
    /// As `VERSION_ID` has it.
    pub number: &'static str,
    /// As sources have it.
    pub codename: &'static str,
}

impl Release {
    /// Name in reports.
    pub fn name(&self) -> String {
        format!("fresh: Debian {}", self.number)
    }
}

/// An apt source of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    site: String,
    /// `-updates`, `-security`, or nothing.
    suffix: String,
    component: String,
    keyring: String,
}

impl Source {
    /// Out of a line `SITE|CODENAME|COMPONENT|SIGNED_BY` of apt's own.
    fn parse(line: &str, own_codename: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let mut next = || fields.next().filter(|field| !field.starts_with("$("));
        let (site, codename) = (next()?, next()?);
        let suffix = codename.strip_prefix(own_codename)?;
        if !["", "-updates", "-security"].contains(&suffix) {
            return None;
        }
        Some(Source {
            site: site.to_owned(),
            suffix: suffix.to_owned(),
            component: next()?.to_owned(),
            keyring: next()
                .filter(|path| path.starts_with('/'))
                .unwrap_or(KEYRING)
                .to_owned(),
        })
    }

    /// The same of another release, as a line of `sources.list`.
    fn line(&self, release: &Release) -> String {
        format!(
            "deb [signed-by={}] {} {}{} {}\n",
            self.keyring, self.site, release.codename, self.suffix, self.component
        )
    }
}

/// Debian's sources in this machine's apt configuration, for another release.
fn sources(release: &Release) -> Result<String> {
    let own = tool::output_of(
        Command::new("sh").args(["-c", ". /etc/os-release && echo \"${VERSION_CODENAME:-}\""]),
    )?;
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format"]);
    apt.arg("$(SITE)|$(CODENAME)|$(COMPONENT)|$(SIGNED_BY)");
    apt.args(["Created-By: Packages", "Origin: Debian"]);
    let text = tool::output_of(&mut apt).context("Cannot ask apt for its sources")?;
    let mut sources: Vec<Source> = text
        .lines()
        .filter_map(|line| Source::parse(line, &own))
        .collect();
    sources.sort();
    sources.dedup();
    ensure!(
        sources.iter().any(|source| source.suffix.is_empty()),
        "No source of Debian in this machine's apt configuration, whose lists may have to be brought up to date"
    );
    Ok(sources.iter().map(|source| source.line(release)).collect())
}

/// This machine's way to fetch packages, as an apt configuration.
fn apt_options() -> Result<String> {
    let text = tool::output_of(Command::new("apt-config").arg("dump"))?;
    let taken = |line: &&str| {
        let mut options = APT_OPTIONS.iter();
        options.any(|option| {
            line.strip_prefix(option)
                .is_some_and(|rest| rest.starts_with(' '))
        })
    };
    Ok(text
        .lines()
        .filter(taken)
        .map(|line| line.to_owned() + "\n")
        .collect())
}

/// The certificates of a file of many.
fn certificates(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split_inclusive(CERTIFICATE_END);
    parts.filter(|part| part.ends_with(CERTIFICATE_END))
}

/// A root file system.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Makes one in `folder`, in which nothing of another is left.
    ///
    /// # Errors
    ///
    /// Those of mmdebstrap, with the log's place.
    pub fn make(release: &Release, folder: PathBuf, log: &Path) -> Result<Self> {
        let root = Root(folder);
        if root.0.exists() {
            root.clear()?;
        }
        let (sources, options) = (sources(release)?, apt_options()?);
        let list = root.0.with_extension("list");
        let config = root.0.with_extension("apt.conf");
        for (file, text) in [(&list, &sources), (&config, &options)] {
            fs::write(file, text).with_context(|| format!("Cannot write {}", file.display()))?;
        }
        let mut bootstrap = tool::builder("mmdebstrap");
        bootstrap.args(["--variant=minbase", "--mode=root", "--format=directory"]);
        bootstrap.arg(format!("--aptopt={}", config.display()));
        bootstrap.arg(release.codename).arg(&root.0).arg(&list);
        tool::run_logged(&mut bootstrap, "Making a root file system", log, |_| {})?;
        for file in TAKEN {
            root.take(file)?;
        }
        root.trust_as_here()?;
        Ok(root)
    }

    /// Takes a file of this machine along, if it is there.
    fn take(&self, file: &str) -> Result<()> {
        if !Path::new(file).is_file() {
            return Ok(());
        }
        let to = self.path(file);
        let context = || format!("Cannot take {file} along");
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(context)?;
        }
        // What a link leads to, on this side of it.
        fs::copy(file, to).map(drop).with_context(context)
    }

    /// Has what is installed there later leave the certificates of this machine.
    fn trust_as_here(&self) -> Result<()> {
        if !Path::new(CERTIFICATES).is_file() {
            return Ok(());
        }
        let text = fs::read_to_string(CERTIFICATES)
            .with_context(|| format!("Cannot read {CERTIFICATES}"))?;
        let folder = self.path(OWN_CERTIFICATES);
        let context = || format!("Cannot write to {}", folder.display());
        fs::create_dir_all(&folder).with_context(context)?;
        for (number, certificate) in certificates(&text).enumerate() {
            fs::write(folder.join(format!("{number}.crt")), certificate).with_context(context)?;
        }
        Ok(())
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Where a path in it lies.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside.trim_start_matches('/'))
    }

    /// A command of a shell, in a folder of the root, as root, in namespaces that end with it.
    pub fn command(&self, folder: &str, command: &str) -> Command {
        let mut enter = tool::builder("unshare");
        enter.args(["--mount", "--pid", "--fork", "--kill-child"]);
        enter.args(["sh", "-c", ENTER, "sh"]);
        enter.arg(&self.0).args([folder, command]);
        enter.env("HOME", "/root");
        enter.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        // This machine's places are not there.
        for (name, _) in std::env::vars_os() {
            let is_place = PLACES
                .iter()
                .any(|place| name.as_bytes().starts_with(place.as_bytes()));
            if is_place {
                enter.env_remove(name);
            }
        }
        enter
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// Those of `rm`.
    pub fn remove(self) -> Result<()> {
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        // Nothing is mounted in it outside of the namespaces of commands; should something be, it stays.
        let mut remove = Command::new("rm");
        let status = remove
            .args(["--recursive", "--force", "--one-file-system"])
            .arg(&self.0)
            .status();
        let status = status.context("Cannot start rm")?;
        ensure!(
            status.success(),
            "Cannot remove {}: rm ended with {:?}",
            self.0.display(),
            status.code().or(status.signal())
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIXIE: Release = Release {
        number: "13",
        codename: "trixie",
    };

    #[test]
    fn certificates_are_told_apart() {
        let one = "# A\n-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";
        let other = "\n-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----";
        let text = format!("{one}{other}\n");
        assert_eq!(certificates(&text).collect::<Vec<_>>(), [one, other]);
        assert_eq!(certificates("").count(), 0);
    }

    #[test]
    fn sources_of_this_release_become_those_of_another() {
        let line = "http://mirror.example/debian-security|bookworm-security|main|/keys/a.gpg";
        let source = Source::parse(line, "bookworm").expect("one of Debian's");
        assert_eq!(
            source.line(&TRIXIE),
            "deb [signed-by=/keys/a.gpg] http://mirror.example/debian-security trixie-security main\n"
        );
        let line = "http://mirror.example/debian|bookworm|main|$(SIGNED_BY)";
        let source = Source::parse(line, "bookworm").expect("one of Debian's");
        assert!(source.line(&TRIXIE).contains(KEYRING));
        for line in [
            "http://mirror.example/debian|bookworm-backports|main|",
            "http://mirror.example/debian|sid|main|",
            "",
        ] {
            assert_eq!(Source::parse(line, "bookworm"), None, "{line}");
        }
    }
}

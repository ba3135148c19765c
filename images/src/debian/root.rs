// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A root file system of a release of Debian: what Debian calls minimal and the packages asked for, and of this
//! machine only how packages and certificates are got.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::sources::{self, Release};
use crate::tool;

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
/// Mounts what a machine has and folders of this one, and enters the root; the words are the root, the folders,
/// `--`, and what is run.
const ENTER: &str = r#"
set -eu
root=$1
shift
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" 2>/dev/null || mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
	mkdir -p "$root$1"
	mount --rbind "$1" "$root$1"
	shift
done
shift
# The shell has set it to where it is itself.
exec chroot "$root" env PWD=/ "$@"
"#;
/// How others than root become root in namespaces of their own (`user_namespaces(7)`); takes the package
/// `uidmap`.
const BECOME_ROOT: &[&str] = &["--user", "--map-root-user", "--map-auto"];
/// Namespaces that end with the program in them.
const NAMESPACES: &[&str] = &["--mount", "--pid", "--fork", "--kill-child"];

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
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Refuses a user who may not have the namespaces that a root file system is made and used in, before it is
/// waited for.
///
/// # Errors
///
/// Says what the system says, and what gives the right.
pub fn check_right() -> Result<()> {
    let mut unshare = tool::builder("unshare");
    let needed = if is_root() {
        "takes the right to mount (CAP_SYS_ADMIN), which root has not everywhere in a container"
    } else {
        unshare.args(BECOME_ROOT);
        "takes root, or user namespaces and numbers for this user in /etc/subuid and /etc/subgid (usermod \
         --add-subuids 100000-165535 --add-subgids 100000-165535 USER)"
    };
    unshare.args(NAMESPACES).arg("true");
    let tried = tool::output_of(&mut unshare).map(drop);
    tried.with_context(|| format!("A root file system of another release of Debian {needed}"))
}

impl Root {
    /// The one in `folder`, which was made before.
    pub fn there(folder: PathBuf) -> Self {
        Root(folder)
    }

    /// Makes one in `folder`, in which nothing of another is left, with these packages.
    ///
    /// # Errors
    ///
    /// Those of mmdebstrap, with the log's place.
    pub fn make(release: &Release, packages: &[&str], folder: PathBuf, log: &Path) -> Result<Self> {
        let root = Root(folder);
        if root.0.exists() {
            root.clear()?;
        }
        let (sources, options) = (sources::of(release)?, apt_options()?);
        let list = root.0.with_extension("list");
        let config = root.0.with_extension("apt.conf");
        for (file, text) in [(&list, &sources), (&config, &options)] {
            fs::write(file, text).with_context(|| format!("Cannot write {}", file.display()))?;
        }
        let mut bootstrap = tool::builder("mmdebstrap");
        let mode = if is_root() { "root" } else { "unshare" };
        bootstrap.args(["--variant=minbase", "--format=directory"]);
        bootstrap.arg(format!("--mode={mode}"));
        bootstrap.arg(format!("--aptopt={}", config.display()));
        if !packages.is_empty() {
            bootstrap.arg(format!("--include={}", packages.join(",")));
        }
        bootstrap.arg(release.codename).arg(&root.0).arg(&list);
        tool::run_logged(&mut bootstrap, "Making a root file system", log, |_| {})?;
        Ok(root)
    }

    /// Has programs there reach others as this machine does.
    ///
    /// # Errors
    ///
    /// Names the file that could not be taken along.
    pub fn reach_as_here(&self) -> Result<()> {
        for file in TAKEN {
            self.take(file)?;
        }
        self.trust_as_here()
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
        let mut shell = self.program(&[], "/bin/sh");
        shell.args(["-c", r#"cd "$1" && eval "exec $2""#, "sh", folder, command]);
        shell
    }

    /// A program of the root, as root there, in namespaces that end with it. It sees these folders of this
    /// machine where they are here, and what is mounted in them.
    pub fn program(&self, shown: &[PathBuf], program: &str) -> Command {
        let mut enter = tool::builder("unshare");
        if !is_root() {
            enter.args(BECOME_ROOT);
        }
        enter.args(NAMESPACES).args(["sh", "-c", ENTER, "sh"]);
        enter.arg(&self.0).args(shown).args(["--", program]);
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
        let mut remove = if is_root() {
            Command::new("rm")
        } else {
            let mut unshare = Command::new("unshare");
            unshare.args(BECOME_ROOT).arg("rm");
            unshare
        };
        remove.args(["--recursive", "--force", "--one-file-system"]);
        let status = remove.arg(&self.0).status();
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

    #[test]
    fn certificates_are_told_apart() {
        let one = "# A\n-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";
        let other = "\n-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----";
        let text = format!("{one}{other}\n");
        assert_eq!(certificates(&text).collect::<Vec<_>>(), [one, other]);
        assert_eq!(certificates("").count(), 0);
    }
}

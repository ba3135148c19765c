// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where this machine gets Debian's packages, for other releases than its own.

use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::tool;

/// Debian's keys, where an apt source names none.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What an archive of a release is called behind its name: its own, and those that mend it.
const PARTS: &[&str] = &["", "-updates", "-security"];

/// A release of Debian.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// As `VERSION_ID` has it.
    pub number: &'static str,
    /// As sources have it.
    pub codename: &'static str,
}

/// An apt source of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    site: String,
    /// One of [`PARTS`].
    part: String,
    component: String,
    keyring: String,
}

impl Source {
    /// Out of a line `SITE|CODENAME|COMPONENT|SIGNED_BY` of apt's own.
    fn parse(line: &str, own_codename: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let mut next = || fields.next().filter(|field| !field.starts_with("$("));
        let (site, codename) = (next()?, next()?);
        let part = codename.strip_prefix(own_codename)?;
        if !PARTS.contains(&part) {
            return None;
        }
        Some(Source {
            site: site.to_owned(),
            part: part.to_owned(),
            component: next()?.to_owned(),
            keyring: next()
                .filter(|path| path.starts_with('/'))
                .unwrap_or(KEYRING)
                .to_owned(),
        })
    }

    /// Another suite there, as a line of `sources.list`.
    fn line(&self, suite: &str) -> String {
        format!(
            "deb [signed-by={}] {} {suite} {}\n",
            self.keyring, self.site, self.component
        )
    }
}

/// Debian's sources in this machine's apt configuration, those of its own release.
fn own() -> Result<Vec<Source>> {
    let codename = tool::output_of(
        Command::new("sh").args(["-c", ". /etc/os-release && echo \"${VERSION_CODENAME:-}\""]),
    )?;
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format"]);
    apt.arg("$(SITE)|$(CODENAME)|$(COMPONENT)|$(SIGNED_BY)");
    apt.args(["Created-By: Packages", "Origin: Debian"]);
    let text = tool::output_of(&mut apt).context("Cannot ask apt for its sources")?;
    let mut sources: Vec<Source> = text
        .lines()
        .filter_map(|line| Source::parse(line, &codename))
        .collect();
    sources.sort();
    sources.dedup();
    ensure!(
        sources.iter().any(|source| source.part.is_empty()),
        "No source of Debian in this machine's apt configuration, whose lists may have to be brought up to date"
    );
    Ok(sources)
}

/// Whether this machine gets packages from Debian.
///
/// # Errors
///
/// Its apt has no source of Debian's, or it has no apt.
pub fn reachable() -> Result<()> {
    own().map(drop)
}

/// The sources of a release, as a `sources.list`.
///
/// # Errors
///
/// This machine's apt knows none of Debian's.
pub fn of(release: &Release) -> Result<String> {
    let line = |source: &Source| source.line(&format!("{}{}", release.codename, source.part));
    Ok(own()?.iter().map(line).collect())
}

/// The sources of suites, as a `sources.list`.
///
/// # Errors
///
/// Those of [`of`].
pub fn of_suites(suites: &[&str]) -> Result<String> {
    let mut own = own()?;
    own.retain(|source| source.part.is_empty() && source.component == "main");
    let lines = own
        .iter()
        .flat_map(|source| suites.iter().map(|suite| source.line(suite)));
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_this_release_become_those_of_another() {
        let line = "http://mirror.example/debian-security|bookworm-security|main|/keys/a.gpg";
        let source = Source::parse(line, "bookworm").expect("one of Debian's");
        assert_eq!(source.part, "-security");
        assert_eq!(
            source.line("trixie-security"),
            "deb [signed-by=/keys/a.gpg] http://mirror.example/debian-security trixie-security main\n"
        );
        let line = "http://mirror.example/debian|bookworm|main|$(SIGNED_BY)";
        let source = Source::parse(line, "bookworm").expect("one of Debian's");
        assert!(source.line("sid").contains(KEYRING));
        for line in [
            "http://mirror.example/debian|bookworm-backports|main|",
            "http://mirror.example/debian|sid|main|",
            "",
        ] {
            assert_eq!(Source::parse(line, "bookworm"), None, "{line}");
        }
    }
}

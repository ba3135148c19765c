// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds SQLite's test program, which its test suite is run by; the source stays beside it, for
//! the suite and as something to compile.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::artifacts::Artifacts;
use crate::cache::{self, Entry, Key, Lock};
use crate::fetch;
use crate::host_packages::{self, Group};
use crate::progress::Progress;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// Source and build tree, both of which stay.
const NEEDED_MIB: u64 = 300;
/// All that has tests. A C library of its own would only cost time.
const CONFIGURE: &[&str] = &[
    "--disable-shared",
    "--enable-all",
    "--with-tcl=/usr/lib/tcl8.6",
    "CFLAGS=-O2",
];
/// The program.
const PROGRAM: &str = "testfixture";

/// A finished build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sqlite {
    /// The source, with the tests in `test`.
    pub source: PathBuf,
    /// Where it was built: `testfixture`, and in `tsrc` the files to compile, generated ones among
    /// them.
    pub build: PathBuf,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The finished build.
///
/// # Errors
///
/// It is not there.
pub fn built() -> Result<Sqlite> {
    Entry::new("sqlite", &key()?)?
        .load()?
        .context("SQLite's tests are not built: run ./coax test soak")
}

/// Builds what is missing; packages of the host are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(install: bool) -> Result<Sqlite> {
    host_packages::ensure(&[Group::Soak], install)?;
    if let Ok(sqlite) = built() {
        return Ok(sqlite);
    }
    let _lock = Lock::take()?;
    // By another run, for which this one has waited.
    if let Ok(sqlite) = built() {
        return Ok(sqlite);
    }
    let started = Instant::now();
    let entry = Entry::new("sqlite", &key()?)?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "SQLite")?;
    let log = entry.path("build.log");
    let (source, build) = (entry.path("source"), entry.path("build"));
    if !source.is_dir() {
        let archive = fetch::first_of(&Artifacts::pinned()?.sqlite)?;
        tool::unpack_source(
            &archive.path,
            &source,
            &[],
            "Unpacking SQLite",
            &log,
            |_| Ok(()),
        )?;
    }
    compile(&source, &build, &log)?;
    let sqlite = Sqlite {
        source,
        build,
        seconds: started.elapsed().as_secs_f64(),
    };
    entry.complete(&sqlite)?;
    Ok(sqlite)
}

fn key() -> Result<String> {
    let mut key = Key::new("sqlite", RECIPE);
    for source in &Artifacts::pinned()?.sqlite {
        key = key.add("source", source.sha256.as_bytes());
    }
    for word in CONFIGURE {
        key = key.add("word", word.as_bytes());
    }
    Ok(key.finish())
}

fn compile(source: &Path, build: &Path, log: &Path) -> Result<()> {
    let progress = Progress::start("Building SQLite's test program");
    cache::make_folder(build)?;
    let mut configure = tool::builder(source.join("configure"));
    configure.args(CONFIGURE).current_dir(build);
    tool::run_logged(&mut configure, "Configuring SQLite", log, |_| {})?;
    let mut make = tool::builder("make");
    make.arg(format!("--jobs={}", tool::jobs()))
        .arg(PROGRAM)
        .current_dir(build);
    tool::run_logged(&mut make, "Building SQLite", log, |_| {})?;
    progress.finish();
    Ok(())
}

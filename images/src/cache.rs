// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is kept between runs: one folder for each build, named by a hash of all its inputs.
//!
//! A build works in its own folder and writes its stamp, by renaming, as the last thing. So a
//! folder without a stamp is an interrupted build, which the next run resumes, and one with a
//! stamp is never touched again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{bail, Context, Result};
use coax_program::errln;
use nix::fcntl::{Flock, FlockArg};
use serde::{de::DeserializeOwned, Serialize};
use sha2::{Digest, Sha256};

/// Characters of the hash in a folder's name: 64 bits, with a few builds to tell apart.
const KEY_CHARS: usize = 16;
const STAMP: &str = "complete.json";
/// Longest use of a build: VMs are started from it as long as a suite runs.
const LONGEST_USE: Duration = Duration::from_secs(12 * 3600);

/// Where the script `coax` says that it is.
const CHECKOUT_VARIABLE: &str = "COAX_CHECKOUT";

/// The top of this checkout: that of the script which started this program, else that which the program was
/// built in. A checkout can have moved since, or have another's program in a build folder that they share.
pub fn checkout() -> PathBuf {
    std::env::var_os(CHECKOUT_VARIABLE).map_or_else(
        || {
            let images = Path::new(env!("CARGO_MANIFEST_DIR"));
            images.parent().unwrap_or(images).to_path_buf()
        },
        PathBuf::from,
    )
}

/// The cache folder: `coax` in `$XDG_CACHE_HOME`, or in `~/.cache`.
///
/// # Errors
///
/// Neither `XDG_CACHE_HOME` nor `HOME` is an absolute path.
pub fn root() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(base
        .context("Neither XDG_CACHE_HOME nor HOME says where to keep builds")?
        .join("coax"))
}

/// Refuses what the kernel's makefiles would stumble over late, before anything is built.
///
/// # Errors
///
/// Names the folder that has a name which they take apart.
pub fn check_paths() -> Result<()> {
    for (folder, what, remedy) in [
        (
            root()?,
            "the cache folder",
            "point XDG_CACHE_HOME elsewhere",
        ),
        (checkout(), "this checkout", "move it"),
    ] {
        if !makes_can_use(&folder) {
            bail!(
                "The kernel's makefiles cannot use {what} {}, which {UNUSABLE}: {remedy}",
                folder.display()
            );
        }
    }
    Ok(())
}

/// Characters that make, or the shell that it calls, takes apart.
const TAKEN_APART: &str = ":\"#$%&'()*;<>?[\\]`|";
/// What is wrong with a folder that the kernel's makefiles cannot use.
pub const UNUSABLE: &str =
    "has a blank, a colon or another character in its name that make or the shell takes apart, or \
                            a name that is no text";

/// Whether the kernel's makefiles can use a folder of this name.
pub fn makes_can_use(folder: &Path) -> bool {
    let is_taken_apart = |c: char| c.is_whitespace() || c.is_control() || TAKEN_APART.contains(c);
    folder
        .to_str()
        .is_some_and(|name| !name.contains(is_taken_apart))
}

/// Collects the inputs of a build.
pub struct Key(Sha256);

impl Key {
    /// Starts with the build's kind and the version of its recipe.
    pub fn new(kind: &str, recipe: u32) -> Self {
        Key(Sha256::new()).add(kind, recipe.to_string().as_bytes())
    }

    /// Adds an input. Lengths go in too, so that no two lists of inputs look the same.
    pub fn add(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds a file, or all files below a folder, by contents and relative path. Left out are names
    /// that begin with a dot, what builds leave behind, and texts for people.
    ///
    /// # Errors
    ///
    /// Names the file that could not be read.
    pub fn add_path(mut self, path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect_files(path, &mut files)
            .with_context(|| format!("Cannot read {}", path.display()))?;
        files.sort();
        for file in files {
            let name = file
                .strip_prefix(path)
                .unwrap_or(&file)
                .to_string_lossy()
                .into_owned();
            let contents =
                fs::read(&file).with_context(|| format!("Cannot read {}", file.display()))?;
            self = self.add(&name, &contents);
        }
        Ok(self)
    }

    /// The key's text.
    pub fn finish(self) -> String {
        let mut text = hex(&self.0.finalize());
        text.truncate(KEY_CHARS);
        text
    }
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || name.ends_with(".md") || name == "target" || name == "build" {
            continue;
        }
        collect_files(&entry.path(), files)?;
    }
    Ok(())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
///
/// Names the file when it cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let context = || format!("Cannot read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(context)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// The folder of one build.
#[derive(Clone, Debug)]
pub struct Entry {
    folder: PathBuf,
}

impl Entry {
    /// The folder of the build `kind` with `key`; it need not exist.
    ///
    /// # Errors
    ///
    /// Those of [`root`].
    pub fn new(kind: &str, key: &str) -> Result<Self> {
        Ok(Entry {
            folder: root()?.join(kind).join(key),
        })
    }

    /// Makes the folder.
    ///
    /// # Errors
    ///
    /// Names the folder that could not be made.
    pub fn create(&self) -> Result<()> {
        make_folder(&self.folder)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the finished build wrote down, or `None` when it is not finished.
    ///
    /// # Errors
    ///
    /// The stamp is unreadable; the folder has to be removed by hand.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let path = self.path(STAMP);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("Cannot read {}", path.display()))?,
        };
        let stamp = serde_json::from_slice(&text)
            .with_context(|| format!("{} is broken: remove its folder", path.display()))?;
        Ok(Some(stamp))
    }

    /// Declares the build finished.
    ///
    /// # Errors
    ///
    /// The stamp cannot be written.
    pub fn complete<T: Serialize>(&self, stamp: &T) -> Result<()> {
        let text = serde_json::to_vec_pretty(stamp)?;
        write_atomically(&self.path(STAMP), &text)
    }
}

/// Makes a folder and its parents.
///
/// # Errors
///
/// Names the folder that could not be made.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("Cannot make the folder {}", path.display()))
}

/// Writes a file so that it is seen whole or not at all.
///
/// # Errors
///
/// Names the file that could not be written.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let written = fs::write(&temporary, contents).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Half a file of no use to anybody; that it cannot be removed tells nothing new.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("Cannot write {}", path.display()))
}

/// Keeps the newest builds of a kind, and all that somebody may still be running.
///
/// # Errors
///
/// Names the folder that could not be read or removed.
pub fn remove_old(kind: &str, kept: usize) -> Result<()> {
    remove_surplus(&root()?.join(kind), kept)
}

fn remove_surplus(folder: &Path, kept: usize) -> Result<()> {
    let context = || format!("Cannot tidy {}", folder.display());
    if !folder.exists() {
        return Ok(());
    }
    let mut builds: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        builds.push((entry.metadata()?.modified()?, entry.path()));
    }
    builds.sort();
    let surplus = builds.len().saturating_sub(kept);
    let is_old = |time: &SystemTime| time.elapsed().is_ok_and(|age| age > LONGEST_USE);
    let old = builds.into_iter().take(surplus);
    for (_, build) in old.filter(|(time, _)| is_old(time)) {
        fs::remove_dir_all(&build).with_context(|| format!("Cannot remove {}", build.display()))?;
    }
    Ok(())
}

/// MiB free where `path` lies.
///
/// # Errors
///
/// The file system does not tell.
pub fn free_mib(path: &Path) -> Result<u64> {
    let status = nix::sys::statvfs::statvfs(path)
        .with_context(|| format!("Cannot tell the free space of {}", path.display()))?;
    Ok((status.blocks_available() * status.fragment_size()) >> 20)
}

/// Refuses to begin what will not fit.
///
/// # Errors
///
/// Fewer than `needed_mib` are free where `path` lies.
pub fn check_space(path: &Path, needed_mib: u64, purpose: &str) -> Result<()> {
    let free_mib = free_mib(path)?;
    if free_mib < needed_mib {
        bail!(
            "Not enough disk space for {purpose}: {needed_mib} MiB needed in {}, {free_mib} MiB \
             free. Free some, or point XDG_CACHE_HOME elsewhere",
            path.display()
        );
    }
    Ok(())
}

/// Held while building, so that two runs do not work in the same folders.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "released when dropped")] Flock<File>);

impl Lock {
    /// Takes the lock, waiting for another run if there is one.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub fn take() -> Result<Self> {
        let root = root()?;
        make_folder(&root)?;
        let path = root.join("lock");
        let open =
            || File::create(&path).with_context(|| format!("Cannot make {}", path.display()));
        let flock = match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(flock) => flock,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                errln!("Another coax is building; waiting for it.");
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, errno)| io::Error::from(errno))
                    .with_context(|| format!("Cannot lock {}", path.display()))?
            }
            Err((_, errno)) => {
                return Err(io::Error::from(errno))
                    .with_context(|| format!("Cannot lock {}", path.display()))
            }
        };
        Ok(Lock(flock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_depends_on_every_input_and_its_borders() {
        let key = |parts: &[(&str, &str)]| {
            parts
                .iter()
                .fold(Key::new("k", 1), |key, (n, v)| key.add(n, v.as_bytes()))
                .finish()
        };
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
        assert_ne!(key(&[("a", "b")]), key(&[("a", "c")]));
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(Key::new("k", 1).finish(), Key::new("k", 2).finish());
        assert_eq!(key(&[]).len(), KEY_CHARS);
    }

    #[test]
    fn key_of_a_folder_follows_contents_and_names_not_hidden_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = || {
            Key::new("k", 1)
                .add_path(folder.path())
                .expect("readable")
                .finish()
        };
        fs::create_dir(folder.path().join("sub")).expect("writable");
        fs::write(folder.path().join("sub/a"), "1").expect("writable");
        let first = key();
        fs::write(folder.path().join(".hidden"), "x").expect("writable");
        assert_eq!(key(), first);
        fs::write(folder.path().join("sub/a"), "2").expect("writable");
        assert_ne!(key(), first);
    }

    #[test]
    fn entry_is_complete_only_after_its_stamp() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let entry = Entry {
            folder: folder.path().join("e"),
        };
        entry.create().expect("writable");
        assert_eq!(entry.load::<u32>().expect("readable"), None);
        entry.complete(&7).expect("writable");
        assert_eq!(entry.load::<u32>().expect("readable"), Some(7));
    }

    #[test]
    fn old_builds_go_but_for_the_newest() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let folder = top.path().join("guest");
        remove_surplus(&folder, 1).expect("nothing was ever built");
        let now = SystemTime::now();
        for (name, age) in [("oldest", 3), ("old", 2), ("in_use", 0)] {
            fs::create_dir_all(folder.join(name)).expect("writable");
            let build = File::open(folder.join(name)).expect("it is there");
            build
                .set_modified(now - LONGEST_USE * age)
                .expect("its owner");
        }
        remove_surplus(&folder, 2).expect("its owner");
        assert!(!folder.join("oldest").exists() && folder.join("old").exists());
        remove_surplus(&folder, 0).expect("its owner");
        assert!(!folder.join("old").exists() && folder.join("in_use").exists());
    }

    #[test]
    fn folders_that_makefiles_take_apart_are_refused() {
        use std::os::unix::ffi::OsStrExt as _;
        assert!(makes_can_use(Path::new("/home/user/.cache/coax")));
        assert!(makes_can_use(Path::new("/srv/linux-7.2~rc1+mine,2@{x}=é")));
        for name in [
            "/home/a user/.cache",
            "/a:b",
            "/a\tb",
            "/it's",
            "/a#1",
            "/$HOME",
            "/100%",
            "/a&b",
        ] {
            assert!(!makes_can_use(Path::new(name)), "{name}");
        }
        let odd = std::ffi::OsStr::from_bytes(b"/\xff");
        assert!(!makes_can_use(Path::new(odd)));
    }

    #[test]
    fn space_that_no_disk_has_is_refused_with_both_numbers() {
        let error = check_space(Path::new("/"), u64::MAX >> 20, "a test").expect_err("too much");
        assert!(error.to_string().contains("MiB needed"));
    }
}

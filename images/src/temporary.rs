// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Folders that go with their owner, even when a signal ends this program; one that is killed leaves its
//! folder to the next program.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::Uid;
use tempfile::TempDir;

/// What names of such folders begin with.
const PREFIX: &str = "coax-";
/// A file in each of them, locked as long as the owner lives. Folders without it are somebody else's.
const MARK: &str = ".coax-temporary";
/// From the making of a mark to its lock, generously: a younger one may be without.
const UNLOCKED_AGE: Duration = Duration::from_secs(60);

/// Folders that are there, for [`remove_all`].
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A folder that is removed when dropped. A name in it may be that of a socket however long its path is.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    handle: File,
    _mark: Flock<File>,
}

impl TemporaryFolder {
    /// Makes an empty folder in `TMPDIR`, and removes there what programs left behind that were killed.
    ///
    /// # Errors
    ///
    /// Those of making a folder; they name it, and the variable.
    pub fn new() -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(top: &Path) -> io::Result<Self> {
        remove_left(top);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(top);
        let folder = folder.map_err(|error| explain(error, top))?;
        let handle = File::open(folder.path())?;
        let mark = mark(folder.path()).map_err(|error| explain(error, top))?;
        folders().push(folder.path().to_path_buf());
        Ok(TemporaryFolder {
            folder,
            handle,
            _mark: mark,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Listens at a socket in it.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn listen(&self, name: impl AsRef<Path>) -> io::Result<UnixListener> {
        UnixListener::bind(self.short_path(name))
    }

    /// Connects to a socket in it.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub fn connect(&self, name: impl AsRef<Path>) -> io::Result<UnixStream> {
        UnixStream::connect(self.short_path(name))
    }

    /// A path for this process alone that fits into the 107 bytes of a socket's.
    fn short_path(&self, name: impl AsRef<Path>) -> PathBuf {
        let folder = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        Path::new(&folder).join(name)
    }

    /// A file on the same disk that has no name and goes with its last user.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn unnamed_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(self.path()).map_err(|error| self.explain(error))
    }

    /// What this program's children open to read such a file, while this program has it open.
    pub fn path_of_unnamed(file: &File) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
    }

    /// An error of writing into it, with its name and what says where it is.
    pub fn explain(&self, error: io::Error) -> io::Error {
        explain(error, self.path())
    }
}

fn explain(error: io::Error, folder: &Path) -> io::Error {
    let text = format!("{error}: {}, which TMPDIR chooses", folder.display());
    io::Error::new(error.kind(), text)
}

/// Removes folders of this user whose owner has been killed. Those that cannot be removed stay.
fn remove_left(top: &Path) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = remove_if_left(&entry.path());
        }
    }
}

/// Marks a folder as one of these, for as long as the result lives.
fn mark(folder: &Path) -> io::Result<Flock<File>> {
    let mark = File::create_new(folder.join(MARK))?;
    Flock::lock(mark, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

fn remove_if_left(folder: &Path) -> io::Result<()> {
    // Not through a link, which would have folders removed that somebody else chose.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut options = File::options();
    let mark = options
        .read(true)
        .custom_flags(flags)
        .open(folder.join(MARK))?;
    let (folder_itself, about) = (fs::symlink_metadata(folder)?, mark.metadata()?);
    let ours = |uid| uid == Uid::effective().as_raw();
    // A clock that was set back makes it young.
    let age = about.modified()?.elapsed().unwrap_or_default();
    if !folder_itself.is_dir()
        || !ours(folder_itself.uid())
        || !ours(about.uid())
        || age < UNLOCKED_AGE
    {
        return Ok(());
    }
    match Flock::lock(mark, FlockArg::LockExclusiveNonblock) {
        Ok(_lock) => fs::remove_dir_all(folder),
        Err((_, errno)) => Err(errno.into()),
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        folders().retain(|folder| folder != self.folder.path());
    }
}

/// Removes all folders, for a program that ends without dropping anything.
pub fn remove_all() {
    for folder in folders().drain(..) {
        // There is nobody left to tell.
        let _ = fs::remove_dir_all(folder);
    }
}

fn folders() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_owner() {
        let folder = TemporaryFolder::new().expect("a temporary folder");
        let path = folder.path().to_path_buf();
        assert!(path.is_dir());
        assert!(folders().contains(&path));
        drop(folder);
        assert!(!path.exists());
        assert!(!folders().contains(&path));
    }

    #[test]
    fn folders_of_killed_programs_are_removed_and_those_of_living_ones_stay() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let names = [
            "coax-left",
            "coax-living",
            "coax-young",
            "coax-results",
            "other",
        ];
        let [left, living, young, users, other] = names.map(|name| top.path().join(name));
        let old = std::time::SystemTime::now() - 2 * UNLOCKED_AGE;
        for folder in [&left, &living, &young, &users, &other] {
            fs::create_dir(folder).expect("writable");
            fs::write(folder.join("file"), "x").expect("writable");
        }
        let marks = [&left, &living, &young, &other].map(|folder| mark(folder).expect("writable"));
        let [left_mark, living_mark, young_mark, other_mark] = marks;
        for mark in [&left_mark, &living_mark, &other_mark] {
            mark.set_modified(old).expect("it is ours");
        }
        drop((left_mark, young_mark, other_mark));
        remove_left(top.path());
        assert!(!left.exists());
        for folder in [living, young, users, other] {
            assert!(folder.join("file").exists(), "{} went", folder.display());
        }
    }

    #[test]
    fn sockets_have_room_in_a_folder_with_a_long_path() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let long = top.path().join("x".repeat(120));
        fs::create_dir(&long).expect("writable");
        let folder = TemporaryFolder::new_in(&long).expect("writable");
        let listener = folder.listen("a.sock").expect("it has room");
        folder.connect("a.sock").expect("it is there");
        listener.accept().expect("somebody connected");
        assert!(folder.path().join("a.sock").exists());
    }

    #[test]
    fn an_error_names_the_folder_and_the_variable() {
        let folder = TemporaryFolder::new().expect("a temporary folder");
        let error = folder.explain(io::Error::from(io::ErrorKind::StorageFull));
        let text = error.to_string();
        assert!(text.contains("TMPDIR"), "{text}");
        assert!(
            text.contains(&folder.path().display().to_string()),
            "{text}"
        );
    }

    #[test]
    fn a_file_without_a_name_is_read_by_a_child() {
        let folder = TemporaryFolder::new().expect("a temporary folder");
        let mut file = folder.unnamed_file().expect("writable");
        io::Write::write_all(&mut file, b"contents").expect("writable");
        let path = TemporaryFolder::path_of_unnamed(&file);
        let output = std::process::Command::new("cat").arg(path).output();
        assert_eq!(output.expect("cat is everywhere").stdout, b"contents");
        // Beside the mark.
        let names = fs::read_dir(folder.path()).expect("it is there").count();
        assert_eq!(names, 1);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax run` and `coax shell`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::VmOptions;
use coax_images::images::Images;
use coax_images::job::{Exit, Job};
use coax_images::launch::{self, GuestFile, Output, Tree, Vm, VmConfig};
use coax_images::virtiofsd;
use coax_program::{errln, status};

/// Runs the command, whose exit status is returned, or a shell.
pub fn run(options: &VmOptions, argv: &[OsString], install: bool) -> Result<ExitCode> {
    let root = options.root.as_deref();
    let job = match (argv, root) {
        ([], None) => on_terminal(Job::new(["sh", "-l"])),
        ([], Some(root)) => on_terminal(Job::new([login_shell(root), "-l".into()])),
        (argv, _) => Job::new(argv),
    };
    start(options, root, job, install)
}

/// A login shell in this machine's file system, unless another is asked for.
pub fn shell(options: &VmOptions, install: bool) -> Result<ExitCode> {
    let root = options.root.as_deref().unwrap_or(Path::new("/"));
    let job = on_terminal(Job::new([login_shell(root), "-l".into()]));
    start(options, Some(root), job, install)
}

fn start(options: &VmOptions, root: Option<&Path>, job: Job, install: bool) -> Result<ExitCode> {
    let files = options.file.iter().map(read).collect::<Result<Vec<_>>>()?;
    let config = config(options, files);
    if let Err(problem) = config.check() {
        errln!("coax: {problem}");
        return Ok(status::USAGE.into());
    }
    let images = Images::build(options.kernel.ready(install)?, install)?;
    let tree = root
        .map(|root| -> Result<_> {
            Ok(Tree {
                folder: root.to_path_buf(),
                daemon: virtiofsd::build(install)?,
            })
        })
        .transpose()?;
    errln!("{}", images.machine(&[config.mode]));
    let config = VmConfig { tree, ..config };
    let mut job = match root {
        Some(root) => at_home(job, root),
        None => job,
    };
    job.env.extend(options.env.iter().cloned());
    let outcome = Vm::start(&images, &config, &job)?.wait()?;
    if let Exit::NoProgram { reason, .. } = &outcome.exit {
        errln!("coax: {reason}");
    }
    Ok(outcome.exit.shell_status().into())
}

/// The VM, but for a tree of the host.
fn config(options: &VmOptions, files: Vec<GuestFile>) -> VmConfig {
    VmConfig {
        mode: options.mode.into(),
        translation: options.kernel.which.translation(),
        load_driver: !options.no_driver,
        cpus: options.cpus,
        memory: options.memory,
        devices: options.devices,
        hmm: options.hmm,
        no_migration: options.no_migration,
        device_memory: options.device_memory,
        engines: options.engines,
        kernel_args: options.append.iter().cloned().collect(),
        timeout: options.timeout,
        files,
        output: Output::Interactive,
        ..VmConfig::default()
    }
}

/// A file of the host with its permissions, for the guest.
fn read((file, path): &(PathBuf, String)) -> Result<GuestFile> {
    let context = || format!("Cannot read {}", file.display());
    let contents = fs::read(file).with_context(context)?;
    let mode = fs::metadata(file)
        .with_context(context)?
        .permissions()
        .mode();
    Ok(GuestFile {
        path: path.clone(),
        contents,
        mode,
    })
}

/// Starts the job in the current folder and with the caller's home, if they are below `root`.
fn at_home(job: Job, root: &Path) -> Job {
    let current = std::env::current_dir().ok();
    let directory = current.and_then(|folder| below(root, &folder));
    let home = std::env::var_os("HOME").and_then(|home| below(root, Path::new(&home)));
    let job = Job {
        // The guest takes its root for one that is not there.
        directory: Some(directory.map_or_else(|| "/".into(), PathBuf::into_os_string)),
        ..job
    };
    match home {
        Some(home) => job.env("HOME", home),
        None => job,
    }
}

/// What a folder of the host is called in a guest with this root; `None` if it is not below the root.
fn below(root: &Path, folder: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(folder).ok()?;
    let inside = folder.strip_prefix(root).ok()?;
    Some(Path::new("/").join(inside))
}

/// The user's shell if the tree has it; the guest's own comes last in the search.
fn login_shell(root: &Path) -> OsString {
    let wanted = std::env::var_os("SHELL");
    wanted
        .filter(|shell| {
            let shell = Path::new(shell);
            root.join(shell.strip_prefix("/").unwrap_or(shell))
                .is_file()
        })
        .unwrap_or_else(|| "sh".into())
}

/// The shell on a terminal if the user has one.
fn on_terminal(job: Job) -> Job {
    if !launch::is_interactive() {
        return job;
    }
    errln!("A shell in the guest: `exit` or Ctrl-D ends the VM, Ctrl-] kills it.");
    errln!("The first device is /dev/coax0; try `coaxctl info`.");
    let terminal = std::env::var_os("TERM").unwrap_or_else(|| "linux".into());
    Job {
        terminal: Some(launch::current_size()),
        ..job
    }
    .env("TERM", terminal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn folders_are_named_as_the_guest_sees_them() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let root = fs::canonicalize(top.path()).expect("it is there");
        fs::create_dir_all(root.join("a/b")).expect("writable");
        assert_eq!(below(&root, &root.join("a/b")), Some("/a/b".into()));
        assert_eq!(below(&root, &root), Some("/".into()));
        assert_eq!(below(&root.join("a"), &root), None);
        assert_eq!(below(&root, &root.join("gone")), None);
        assert_eq!(below(Path::new("/"), &root), Some(root.clone()));
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        fs::create_dir(root.join(name)).expect("writable");
        assert_eq!(
            below(&root, &root.join(name)),
            Some(Path::new("/").join(name))
        );
    }

    #[test]
    fn a_shell_that_the_tree_lacks_is_not_asked_for() {
        let top = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(login_shell(top.path()), "sh");
    }
}

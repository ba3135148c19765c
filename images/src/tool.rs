// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the programs that builds are made of.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{bail, Context, Result};
use nix::sys::signal::Signal;

use crate::process::Group;

/// Variables of the caller's that builds see, and beginnings of such names: where things are, and how the
/// network is reached. All others, `CFLAGS`, `ARCH` and whatever else compilers, makes and cargo listen to, would
/// change what is built, while the cache takes it for the same.
const KEPT_VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TERM",
    "CARGO_HOME",
    "CARGO_BUILD_JOBS",
    "RUST_BACKTRACE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "SSH_AUTH_SOCK",
];
const KEPT_BEGINNINGS: &[&str] = &[
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "COAX_",
    "GIT_ASKPASS",
    "GIT_CONFIG",
    "GIT_PROXY_",
    "GIT_SSH",
    "GIT_SSL_",
    "PIP_",
    "RUSTUP_",
    "SSL_CERT_",
    "XDG_",
];

/// A program that builds something: the same from whatever environment, and in English.
pub fn builder(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let kept = std::env::vars_os().filter(|(name, _)| is_kept(name));
    command.env_clear().envs(kept).env("LC_ALL", "C.UTF-8");
    command
}

fn is_kept(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        let mut beginnings = KEPT_BEGINNINGS.iter();
        KEPT_VARIABLES.contains(&name) || beginnings.any(|beginning| name.starts_with(beginning))
    })
}

/// Lines of a failed step's log that are shown.
const SHOWN_LINES: usize = 20;

/// Runs `command`, appends what it writes to `log`, and hands each line to `watch`.
///
/// # Errors
///
/// The command cannot be started or fails; the text names the log and shows its end.
pub fn run_logged(
    command: &mut Command,
    title: &str,
    log: &Path,
    mut watch: impl FnMut(&str),
) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("Cannot write the log {}", log.display()))?;
    let (reader, writer) = nix::unistd::pipe().map_err(io::Error::from)?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = Group::start(command, Signal::SIGTERM)
        .with_context(|| format!("Cannot start {program} for: {title}"))?;
    // The command holds the pipe's writing end, without which reading would not end.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());

    let mut reader = BufReader::new(fs::File::from(reader));
    let status = thread::scope(|scope| -> Result<ExitStatus> {
        // A program that the command leaves behind would hold the pipe for ever.
        let waiter = scope.spawn(|| child.wait_and_clear());
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            file.write_all(&line)
                .with_context(|| format!("Cannot write {}", log.display()))?;
            watch(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        let status = waiter.join();
        Ok(status.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })?;
    if !status.success() {
        bail!(
            "{title} failed: {program} ended with {status}\nlog: {}\n{}",
            log.display(),
            last_lines(log)
        );
    }
    Ok(())
}

/// Unpacks a source archive, without the folder that all of it is in and what is `left_out` (patterns of tar's, in that folder),
/// as `folder`, which appears complete or not at all once `finish` has done its part with what was unpacked.
///
/// # Errors
///
/// The archive is broken, the folder cannot be written, or those of `finish`.
pub fn unpack_source(
    archive: &Path,
    folder: &Path,
    left_out: &[&str],
    title: &str,
    log: &Path,
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let part = folder.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("Cannot remove {}", part.display()))?;
    }
    crate::cache::make_folder(&part)?;
    let mut tar = Command::new("tar");
    if !left_out.is_empty() {
        let top = top_folder(archive);
        tar.arg("--anchored");
        tar.args(
            left_out
                .iter()
                .map(|pattern| format!("--exclude={top}/{pattern}")),
        );
    }
    tar.args([
        "--no-same-owner",
        "--strip-components=1",
        "--extract",
        "--file",
    ]);
    tar.arg(archive).current_dir(&part);
    run_logged(&mut tar, title, log, |_| {})?;
    finish(&part)?;
    fs::rename(&part, folder).with_context(|| format!("Cannot write {}", folder.display()))
}

/// The folder that all of a source archive is in: `linux-source-7.2` of `…/linux-source-7.2.tar.xz`.
fn top_folder(archive: &Path) -> String {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    name.split(".tar").next().unwrap_or_default().to_owned()
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Runs `command` and returns what it writes to standard output, without the last line's end.
///
/// # Errors
///
/// The command cannot be started or fails; the text shows its standard error.
pub fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        // Whatever it was told before.
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("Cannot start {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Runs `command` and has `path` be what it writes to standard output.
///
/// # Errors
///
/// Those of [`output_of`], or the file cannot be written.
pub fn output_into(command: &mut Command, path: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let context = || format!("Cannot write {}", path.display());
    let file = fs::File::create(path).with_context(context)?;
    let output = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("Cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        fs::remove_file(path).with_context(context)?;
        bail!("{program} ended with {}: {}", output.status, said.trim());
    }
    Ok(())
}

/// First line of what `program --version` says.
///
/// # Errors
///
/// Those of [`output_of`].
pub fn version_of(program: &Path) -> Result<String> {
    let text = output_of(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Where `program` is in `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Programs to run at once: one for each processor.
pub fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_leaves_behind_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let mut lines = Vec::new();
        let begin = std::time::Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo done"]);
        run_logged(&mut command, "Leaving", &log, |line| {
            lines.push(line.to_owned())
        })
        .expect("it succeeds");
        assert_eq!(lines, ["done"]);
        assert!(begin.elapsed() < std::time::Duration::from_secs(100));
    }

    #[test]
    fn builders_see_where_things_are_and_no_flags() {
        let kept = |name: &str| is_kept(OsStr::new(name));
        for name in [
            "PATH",
            "HOME",
            "https_proxy",
            "CARGO_HTTP_CAINFO",
            "PIP_INDEX_URL",
        ] {
            assert!(kept(name), "{name}");
        }
        for name in [
            "ARCH",
            "CC",
            "CFLAGS",
            "CROSS_COMPILE",
            // A hook of git's has these, by which the kernel's build would take another version for its own.
            "GIT_DIR",
            "GIT_WORK_TREE",
            "KBUILD_OUTPUT",
            "LLVM",
            "KCFLAGS",
            "KBUILD_EXTMOD",
            "MAKEFLAGS",
            "PYTHONPATH",
            "RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        ] {
            assert!(!kept(name), "{name}");
        }
        let mut builder = builder("env");
        builder.env_remove("PATH").env("PATH", "/usr/bin:/bin");
        let text = output_of(&mut builder).expect("it prints");
        assert!(text.lines().any(|line| line == "LC_ALL=C.UTF-8"), "{text}");
        // Cargo tells each test its own version.
        assert!(!text.contains("CARGO_PKG_VERSION="), "{text}");
    }

    #[test]
    fn failure_names_the_log_and_shows_its_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let mut lines = Vec::new();
        let error = run_logged(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            "a step",
            &log,
            |line| lines.push(line.to_owned()),
        )
        .expect_err("it exits with 3");
        let text = error.to_string();
        assert!(text.contains("a step failed"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(text.contains("log") && text.ends_with("out\nerr"), "{text}");
        assert_eq!(lines, ["out", "err"]);
    }

    #[test]
    fn output_is_returned_and_errors_are_quoted() {
        let text = output_of(Command::new("sh").args(["-c", "echo a b"])).expect("it succeeds");
        assert_eq!(text, "a b");
        let error = output_of(Command::new("sh").args(["-c", "echo why >&2; exit 1"]))
            .expect_err("it fails");
        assert!(error.to_string().contains("why"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command lines of `coax run` and `coax shell`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::Args;

use coax_images::launch::Bytes;
use coax_program::args;

use super::{Kernel, OneMode};

/// `coax run`
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub vm: VmOptions,
    /// Command with its arguments; a shell if there is none
    #[arg(last = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

/// `coax shell`
#[derive(Args, Debug)]
pub struct Shell {
    #[command(flatten)]
    pub vm: VmOptions,
}

/// The VM of `run` and `shell`.
#[derive(Args, Debug)]
pub struct VmOptions {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Folder of this machine that becomes the guest's root file system, such as `/`. The guest
    /// cannot change it: what it writes stays in its memory and goes with it. `/tmp`, `/run` and
    /// the kernel's file systems are the guest's own, the programs that come with the guest are in
    /// /run/coax/bin, and commands start in the current folder if that is below DIR
    #[arg(long, value_name = "DIR", value_parser = words(parse_root))]
    pub root: Option<PathBuf>,
    /// Environment variable of the command; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = words(parse_env))]
    pub env: Vec<(OsString, OsString)>,
    /// System memory, with K, M or G for binary multiples
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_memory)]
    pub memory: Bytes,
    /// Devices: /dev/coax0 and so on, in the order of their root ports
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=MAX_DEVICES))]
    pub devices: u32,
    /// Memory of each device, a power of two, with K, M or G for binary multiples
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_device_memory)]
    pub device_memory: Bytes,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=MAX_CPUS))]
    pub cpus: u32,
    /// Engines of each device
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=MAX_ENGINES))]
    pub engines: u16,
    /// Load the driver with `policy=2`: no page moves, whatever programs ask for
    #[arg(long, conflicts_with = "no_driver")]
    pub no_migration: bool,
    /// Load the driver with `hmm=1`: each device speaks the language of the kernel's test_hmm at
    /// /dev/hmm_dmirrorN, the first two in private mode, the others in coherent mode
    #[arg(long, conflicts_with = "no_driver")]
    pub hmm: bool,
    /// Do not load the driver; it is /lib/modules/coax.ko in the guest
    #[arg(long, conflicts_with = "mode")]
    pub no_driver: bool,
    /// File to put into the guest, at /root/NAME unless a path in the guest is given; static
    /// programs run there; may be repeated
    #[arg(long, value_name = "FILE[:PATH]", value_parser = words(parse_file))]
    pub file: Vec<(PathBuf, String)>,
    /// Words for the kernel's command line
    #[arg(long, value_name = "WORDS")]
    pub append: Option<String>,
    /// End the VM, as a failure, after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = args::seconds)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `CONFIG_NR_CPUS` of the guest kernel.
const MAX_CPUS: i64 = 64;
/// As many as the kernel's own test of this subject uses.
const MAX_DEVICES: i64 = 4;
/// One MSI-X vector and one host thread each: more only cost.
const MAX_ENGINES: i64 = 16;
/// Kernel, root file system with its 24 MB of `/vmlinux`, and something to work with.
const MIN_MEMORY: Bytes = Bytes::mib(512);
/// The smallest range with struct pages that the kernel hot-adds on x86-64.
const MIN_DEVICE_MEMORY: Bytes = Bytes::mib(128);
/// What a 40-bit physical address space has room for beside everything else.
const MAX_MEMORY: Bytes = Bytes::gib(256);

fn parse_memory(text: &str) -> Result<Bytes, String> {
    between(text.parse()?, MIN_MEMORY)
}

pub(super) fn parse_device_memory(text: &str) -> Result<Bytes, String> {
    let bytes = between(text.parse()?, MIN_DEVICE_MEMORY)?;
    if bytes.0.is_power_of_two() {
        return Ok(bytes);
    }
    Err(format!(
        "{bytes} is no power of two, which the size of a PCI range must be"
    ))
}

fn between(bytes: Bytes, least: Bytes) -> Result<Bytes, String> {
    if (least..=MAX_MEMORY).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("{bytes} is not from {least} to {MAX_MEMORY}"))
}

/// Understands arguments that need be no text.
fn words<T: Clone + Send + Sync + 'static>(
    parse: fn(&OsStr) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |word| parse(&word))
}

/// A folder, by its real name.
fn parse_root(word: &OsStr) -> Result<PathBuf, String> {
    let folder = fs::canonicalize(word).map_err(|error| error.to_string())?;
    if !folder.is_dir() {
        return Err("is no folder".into());
    }
    if folder.to_str().is_none() {
        return Err("is no text, and virtiofsd serves no folder of such a name: rename it".into());
    }
    Ok(folder)
}

fn parse_env(word: &OsStr) -> Result<(OsString, OsString), String> {
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        None | Some(0) => Err("is no NAME=VALUE".into()),
        Some(at) => Ok((part(&bytes[..at]), part(&bytes[at + 1..]))),
    }
}

fn part(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

/// `FILE` or `FILE:PATH` to a file of the host and its absolute path in the guest.
fn parse_file(word: &OsStr) -> Result<(PathBuf, String), String> {
    let bytes = word.as_bytes();
    let (file, path) = match bytes.iter().rposition(|byte| *byte == b':') {
        Some(at) => (PathBuf::from(part(&bytes[..at])), part(&bytes[at + 1..])),
        None => {
            let file = PathBuf::from(word);
            let mut path = OsString::from("/root/");
            path.push(file.file_name().ok_or("has no name")?);
            (file, path)
        }
    };
    let path = path.into_string().map_err(|path| {
        let path = PathBuf::from(path);
        format!(
            "{} is no text: give a name for the guest, as FILE:PATH",
            path.display()
        )
    })?;
    if !path.starts_with('/') {
        return Err(format!("{path} is no absolute path"));
    }
    if !file.is_file() {
        return Err(format!("{} is no file", file.display()));
    }
    Ok((file, path))
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    #[test]
    fn names_need_be_no_text() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join(OsStr::from_bytes(b"\xff"));
        fs::write(&file, "").expect("writable");
        let mut taken = file.clone().into_os_string();
        taken.push(":/root/taken");
        assert_eq!(
            parse_file(&taken),
            Ok((file.clone(), "/root/taken".to_owned()))
        );
        let error = parse_file(file.as_os_str()).expect_err("a name for the guest is missing");
        assert!(error.contains("FILE:PATH"), "{error}");
        let env = OsStr::from_bytes(b"A=\xff=");
        assert_eq!(parse_env(env), Ok(("A".into(), part(b"\xff="))));
        let words = ["coax".as_ref(), "run".as_ref(), "--".as_ref(), env];
        let cli = Cli::try_parse_from(words).expect("a command of any words");
        let Command::Run(run) = cli.command else {
            panic!("not understood: {cli:?}");
        };
        assert_eq!(run.argv, [env]);
    }
}

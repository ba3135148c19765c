// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line of `coax`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use coax_images::accel::Choice;
use coax_images::job::Mode;
use coax_images::kernel::Variant;
use coax_images::launch::Bytes;

/// A virtual accelerator with coherent memory, in a virtual machine of its own.
///
/// The first use builds a guest kernel, QEMU and the guest, about 20 minutes on two processors,
/// and keeps them in the cache folder ($XDG_CACHE_HOME or ~/.cache, there `coax`). Later uses
/// start at once.
#[derive(Debug, Parser)]
#[command(name = "coax", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  ./coax demo                         see pages move
  ./coax run -- coaxctl info          run a command beside the device
  ./coax run                          a shell beside the device
  ./coax run --file prog -- ./prog    a static program of yours
  ./coax run --root / -- python3 x.py any program of this machine
  ./coax shell                        a shell with all of them
  ./coax test vm --filter fork        some of the VM tests
  ./coax test vm --kernel debug       all of them, on a kernel that checks itself

Exit status: 0 done, 1 failed, 2 wrong usage; of `run` and `shell`, that of the command,
128 more than a signal that ended it, 127 if there is none, 126 if it cannot be run.")]
pub struct Cli {
    /// Never install packages of the host; list those that are missing instead
    #[arg(long, global = true)]
    pub no_install: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show ordinary memory moving to the device and back, and report
    Demo(Demo),
    /// Run the tests
    Test(Test),
    /// Run a command, or a shell, in a VM with the device
    Run(Run),
    /// A login shell in a VM with the device and this machine's file system, which it cannot change
    Shell(Shell),
    /// Measure, and compare with what must be reached
    Bench(Bench),
    /// Say what this machine has, what is built, and what would be done
    Doctor,
    /// Build without running anything
    Build(Build),
    /// Remove what was built and fetched
    Clean(Clean),
}

/// How the guest's code is run.
#[derive(Args, Clone, Copy, Debug)]
pub struct Accel {
    /// What runs the guest's code
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub accel: Choice,
}

/// Modes to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Modes {
    /// A CPU access brings a page back to system memory
    Private,
    /// The CPU accesses a page where it is
    Coherent,
    /// One after the other
    All,
}

impl Modes {
    /// The modes meant.
    pub fn list(self) -> Vec<Mode> {
        match self {
            Modes::Private => vec![Mode::Private],
            Modes::Coherent => vec![Mode::Coherent],
            Modes::All => Mode::MOVING.to_vec(),
        }
    }
}

/// One mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OneMode {
    /// A CPU access brings a page back to system memory
    Private,
    /// The CPU accesses a page where it is
    Coherent,
    /// Device memory is a memory node, whose pages the kernel moves when asked
    Numa,
}

impl From<OneMode> for Mode {
    fn from(mode: OneMode) -> Self {
        match mode {
            OneMode::Private => Mode::Private,
            OneMode::Coherent => Mode::Coherent,
            OneMode::Numa => Mode::Numa,
        }
    }
}

/// `coax demo`
#[derive(Args, Debug)]
pub struct Demo {
    /// How device memory is used
    #[arg(long, value_enum, default_value_t = Modes::All)]
    pub mode: Modes,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub accel: Accel,
}

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Format, lints, and all tests that need no VM
    Unit,
    /// The driver's build, and its tests that need no kernel
    Driver,
    /// Our own tests that need a guest
    Vm,
    /// The kernel's own tests of this subject, on coax and on the kernel's test_hmm
    Hmm,
    /// What a coherent accelerator has to do for Linux, requirement by requirement; the cases are those
    /// of `vm`, so it runs only when it is named
    Requirements,
    /// Stock programs (Python's and SQLite's own tests, gcc, sort) while their memory moves all the time,
    /// for 20 minutes in each mode; it needs packages that nothing else does, and runs only when it
    /// is named
    Soak,
    /// Each stressor of stress-ng's classes vm, memory and scheduler for 10 s without a storm and in one of
    /// moving pages, in which it has to end in the same way; an hour in each mode, and only when it is named
    Stress,
    /// The back end alone stops for 1 to 30 s and goes on, at 200 points in each mode under a storm of all
    /// commands and moves, while programs let memory go and others get it: no byte may be foreign or
    /// lost; an hour, and only when it is named
    Stall,
    /// The back end is killed, the driver unbound or the device unplugged, at 469 points in each mode
    /// (5 : 1 : 1) under the same storm, and a new one comes: no byte may be lost, nobody may hang; two
    /// hours, and only when it is named
    Kill,
}

/// `coax test`
#[derive(Args, Debug)]
pub struct Test {
    /// Suites to run; if none is named all that do not run only when they are, cheapest first
    #[arg(value_enum, value_name = "SUITE")]
    pub suites: Vec<Suite>,
    /// Only list the suites, with the cases of `vm`
    #[arg(long, conflicts_with = "ktap")]
    pub list: bool,
    /// Also write the results as KTAP
    #[arg(long, value_name = "FILE")]
    pub ktap: Option<PathBuf>,
    /// Of the suite `vm`, only cases whose name contains this, of `stress` only such stressors; may be
    /// repeated
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Also write the results of `hmm`, `requirements`, `soak`, `stress`, `stall` or `kill`, whichever runs first, as
    /// JSON
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub json: Option<PathBuf>,
    /// Run the half of the suite `hmm` that is on coax so many times
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Of the suites `soak`, `stress`, `stall` and `kill`, only this mode
    #[arg(long, value_enum)]
    pub mode: Option<OneMode>,
    /// Least minutes of storm in each mode of the suite `soak`; what is running then is finished
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub minutes: u32,
    /// Step that the suites `soak` and `stress` begin with, or point of `stall` and `kill`; a run says where
    /// to go on
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    pub from: u32,
    /// Points that the suites `stall` and `kill` make in each mode
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub points: Option<u32>,
    /// What all points of the suites `stall` and `kill` follow from; a run prints its own
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Guest kernel that the guests of all suites run on
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub kernel: Variant,
    #[command(flatten)]
    pub accel: Accel,
}

/// `coax run`
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub machine: Machine,
    /// Command with its arguments; a shell if there is none
    #[arg(last = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

/// `coax shell`
#[derive(Args, Debug)]
pub struct Shell {
    #[command(flatten)]
    pub machine: Machine,
}

/// The VM of `run` and `shell`.
#[derive(Args, Debug)]
pub struct Machine {
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
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// Guest kernel
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub kernel: Variant,
    #[command(flatten)]
    pub accel: Accel,
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

fn parse_device_memory(text: &str) -> Result<Bytes, String> {
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
        return Err("is no text, as virtiofsd wants it: mount it by another name".into());
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

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if seconds <= 0.0 {
        return Err("must be more than 0".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// `coax bench`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    /// A part of its own; everything else if there is none.
    #[command(subcommand)]
    pub part: Option<BenchPart>,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub accel: Accel,
}

/// Measurements that are asked for by name.
#[derive(Debug, Subcommand)]
pub enum BenchPart {
    /// How much a device fault of one process is held up by what another does with the device
    Fairness(Fairness),
    /// How long the device takes to give a translation up while it is at work
    Invalidate(Invalidate),
    /// Moving memory to the device and back, beside the kernel's test_hmm and the host's memcpy
    Migrate(Migrate),
    /// Stock programs, numpy and one in C, with the device and without, in a VM with this machine's files
    Programs(Programs),
}

/// `coax bench fairness`
///
/// Times faults of the device, as whole commands, in one process: alone, and beside another one that has 64
/// commands on pages that never come, 64 commands without end, large copies, moves of memory to and fro, or
/// contexts that come and go. None of that may make a fault take more than twice as long.
#[derive(Args, Debug)]
pub struct Fairness {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub accel: Accel,
}

/// `coax bench invalidate`
///
/// Drops pages that the device has translations of while it is at work, for the same context, on the commands
/// with the longest steps. What counts is the device's own time, from an invalidation to its answer: 99 of 100
/// may take 100 µs at most. Beside it stands what the guest sees of it.
#[derive(Args, Debug)]
pub struct Invalidate {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub accel: Accel,
}

/// `coax bench migrate`
#[derive(Args, Debug)]
pub struct Migrate {
    /// Rounds of the kernel's benchmark on both drivers, in turn; medians are shown
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Measure beside another VM, both of whose processors are busy; only the kernel's benchmark, and the
    /// goal is that nothing is slower than test_hmm
    #[arg(long)]
    pub busy: bool,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also draw them
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub accel: Accel,
}

/// `coax bench programs`
///
/// Runs numpy and a program in C with the BLAS drop-in and without, in turn, in one VM, hashes files by the
/// device and by sha256sum, and times BLAS calls of many shapes around the size from which they are sent
/// to the device.
#[derive(Args, Debug)]
pub struct Programs {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Also let the CPU make the product of 2048 x 2048, which takes minutes where it is emulated
    #[arg(long)]
    pub full: bool,
    /// Times that each BLAS call is made on either side; medians are shown
    #[arg(long, value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub accel: Accel,
}

/// Something that is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The guest kernel
    Kernel,
    /// QEMU with the device
    Qemu,
    /// Driver, guest programs, root file system and back end; needs the kernel
    Guest,
    /// What serves this machine's files to a guest, for `run --root`
    Virtiofsd,
    /// All that every VM needs
    All,
}

/// `coax build`
#[derive(Args, Debug)]
pub struct Build {
    /// What to build
    #[arg(value_enum, default_value_t = Part::All)]
    pub part: Part,
    /// Guest kernel
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub kernel: Variant,
}

/// What can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leftover {
    /// Guest kernels
    Kernel,
    /// QEMUs
    Qemu,
    /// Guests
    Guest,
    /// Source archives
    Downloads,
    /// The whole cache folder
    All,
}

/// `coax clean`
#[derive(Args, Debug)]
pub struct Clean {
    /// What to remove
    #[arg(value_enum, default_value_t = Leftover::All)]
    pub what: Leftover,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::CommandFactory;

    fn refused(line: &str) -> i32 {
        let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
        assert_ne!(error.kind(), ErrorKind::DisplayHelp, "{line}");
        error.exit_code()
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_ends_with_status_2() {
        for line in [
            "coax",
            "coax dance",
            "coax demo --mode numa",
            "coax demo --accel warp",
            "coax demo extra",
            "coax run --cpus 0",
            "coax run --devices 0",
            "coax run --devices 5",
            "coax run --no-driver --hmm",
            "coax run --memory 17",
            "coax run --memory 1X",
            "coax run --device-memory 300M",
            "coax run --no-driver --mode private",
            "coax run --timeout 0",
            "coax run --file /nowhere/at-all",
            "coax run --file Cargo.toml:relative",
            "coax run --root /nowhere/at-all",
            "coax run --root Cargo.toml",
            "coax run --env NOTHING",
            "coax run coaxctl info",
            "coax shell ls",
            "coax test nothing",
            "coax test --list --ktap x",
            "coax test --list --json x",
            "coax test hmm --repeat 0",
            "coax test soak --minutes 0",
            "coax test soak --mode all",
            "coax test stall --points 0",
            "coax build everything",
            "coax bench dance",
            "coax bench invalidate --json",
            "coax bench fairness --mode all",
            "coax bench --json x migrate",
            "coax bench migrate --rounds 0",
            "coax bench programs --mode all",
            "coax bench programs --rounds 100",
            "coax build kernel --kernel fast",
        ] {
            assert_eq!(refused(line), 2, "{line}");
        }
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let cli = Cli::try_parse_from(["coax", "run", "--", "ls", "--mode", "x"]);
        let Ok(Cli {
            command: Command::Run(run),
            ..
        }) = cli
        else {
            panic!("not understood: {cli:?}");
        };
        assert_eq!(run.argv, ["ls", "--mode", "x"]);
        assert_eq!(run.machine.mode, OneMode::Private);
    }

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

    #[test]
    fn every_sub_command_explains_itself() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}

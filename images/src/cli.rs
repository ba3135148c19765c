// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line of `coax`.

mod bench;
mod kernel;
mod report;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use coax_images::job::Mode;
use coax_images::launch::Bytes;
use coax_images::machine::Translation;
use coax_results::partition::Partition;

pub use bench::{Bench, BenchPart, Fairness, Invalidate, Migrate, Programs};
pub use kernel::{Configure, Kernel, Untestable};
pub use report::{Merge, Report};
pub use run::{Run, Shell, VmOptions};

/// A virtual accelerator with coherent memory, in a virtual machine of its own.
///
/// The first use fetches or builds a guest kernel, QEMU and the guest, and keeps them in the cache folder
/// ($XDG_CACHE_HOME or ~/.cache, there `coax`): `demo` what is ready soonest, in minutes, all others those of
/// ours, about 20 minutes on two processors. Later uses start at once.
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
  ./coax demo --kernel-tree ~/linux   see them move on a kernel that you built
  ./coax run --qemu stock             a VM of your distribution's QEMU, from 11.1 on
  ./coax config ~/linux               add what its configuration lacks for that

Exit status: 0 done, 1 failed, 2 wrong usage, 125 nothing to test (`--build`); of `run` and `shell`, that of the command,
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
    /// Join reports of `test`, or take something out of one
    #[command(subcommand)]
    Report(Report),
    /// Say what this machine has, what is built, and what would be done
    Doctor(Doctor),
    /// Build without running anything
    Build(Build),
    /// Print the options that give a QEMU of yours the device, and the commands that start the back ends
    QemuArgs(QemuArgs),
    /// Add to the configuration of a kernel tree of yours what it lacks, and nothing else
    Config(Configure),
    /// Remove what was built and fetched
    Clean(Clean),
}

/// Modes to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Modes {
    /// A CPU access brings a page back to system memory
    Private,
    /// The CPU accesses a page where it is
    Coherent,
    /// Device memory is a memory node, to which pages move when asked
    Numa,
    /// All of them
    All,
}

impl Modes {
    /// The modes meant; of all those that can have it.
    pub fn list(self, translation: Translation) -> Vec<Mode> {
        match self {
            Modes::Private => vec![Mode::Private],
            Modes::Coherent => vec![Mode::Coherent],
            Modes::Numa => vec![Mode::Numa],
            Modes::All => translation.modes(&Mode::ALL),
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
    pub kernel: Kernel,
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
    /// The README's first commands in root file systems of Debian 12 and 13 that have nothing yet: kernel and QEMU
    /// are built from nothing in each; hours, as root, 12 GB each, and only when it is named
    Fresh,
}

/// `coax test`
#[derive(Args, Debug)]
pub struct Test {
    /// Suites to run; if none is named all that do not run only when they are, cheapest first
    #[arg(value_enum, value_name = "SUITE")]
    pub suites: Vec<Suite>,
    /// Only list the suites, with the cases of `vm`; with --partition, the full names of the tests in that part
    #[arg(long, conflicts_with_all = ["ktap", "junit", "results"])]
    pub list: bool,
    /// Also write the results as KTAP, nested by suite and VM
    #[arg(long, value_name = "FILE")]
    pub ktap: Option<PathBuf>,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Also write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Run part M of N alone. Parts have no test in common, together have all, are the same on every machine, and
    /// take about the same time. Without the option $SHARD_INDEX of $SHARD_NUMBER, or $CI_NODE_INDEX of
    /// $CI_NODE_TOTAL, if they are set; `coax report merge` makes one report of all
    #[arg(long, value_name = "slice:M/N")]
    pub partition: Option<Partition>,
    /// Of the suite `vm`, only cases whose name contains this, of `hmm` only such tests, of `stress` such
    /// stressors, of `fresh` such releases; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Of the suite `fresh`, only commands in whose name is this: `demo` is the first and the second demo
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Also write the report of `hmm`, `requirements`, `soak`, `stress`, `stall` or `kill`, whichever runs first, as
    /// JSON
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub json: Option<PathBuf>,
    /// Run the half of the suite `hmm` that is on coax so many times
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Of the suites `vm`, `requirements`, `soak`, `stress`, `stall` and `kill`, only this mode; calls of `coax run` in `vm` belong to
    /// private
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
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `coax doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// Also write it as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
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
    /// The driver for this kernel, coax.ko; needs the kernel
    Driver,
    /// QEMU's name and options, with the device, for all that starts QEMU by itself; needs all of the above
    Front,
    /// What serves this machine's files to a guest, for `run --root`
    Virtiofsd,
    /// All that every VM needs
    All,
}

/// `coax qemu-args`
#[derive(Args, Debug)]
#[command(mut_arg("accel", |accel| accel.hide(true)))]
pub struct QemuArgs {
    /// Devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub devices: u32,
    /// Memory of each device, a power of two from 128M on
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = run::parse_device_memory)]
    pub device_memory: Bytes,
    /// Make device memory a memory node: leave memory-backend= out of -machine then, and add -numa
    /// node,nodeid=0,memdev=ID for the system's
    #[arg(long)]
    pub node: bool,
    /// Where the back ends listen
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    pub sockets: PathBuf,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `coax build`
#[derive(Args, Debug)]
// Nothing runs.
#[command(mut_arg("accel", |accel| accel.hide(true)))]
pub struct Build {
    /// What to build
    #[arg(value_enum, default_value_t = Part::All)]
    pub part: Part,
    /// Also pack everything that VMs and the suites `vm`, `hmm`, `requirements`, `stress`, `stall` and `kill` take into FILE,
    /// compressed as the end of its name says (.tar, .tar.gz, .tar.xz). Unpacked, coax-archive/coax runs them on machines
    /// that have no checkout and no compilers
    #[arg(long, value_name = "FILE", conflicts_with = "part")]
    pub archive: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// What can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leftover {
    /// Guest kernels
    Kernel,
    /// QEMUs
    Qemu,
    /// Guests, and drivers for kernel trees of yours
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
    fn every_coax_line_of_the_examples_for_ci_is_understood() {
        let mut lines = 0;
        for text in [
            include_str!("../../ci/github.yml"),
            include_str!("../../ci/gitlab.yml"),
            include_str!("../../ci/README.md"),
        ] {
            let text = text
                .replace("${{ matrix.kernel }}", "debug")
                .replace("${{ matrix.mode }}", "numa")
                .replace("${{ matrix.shard }}", "2")
                .replace("\n          --", " --");
            for line in text.lines() {
                let words: Vec<&str> = line
                    .split('#')
                    .next()
                    .unwrap_or_default()
                    .split(' ')
                    .collect();
                let is_coax = |word: &&str| ["./coax", "coax-archive/coax"].contains(word);
                let Some(at) = words.iter().position(is_coax) else {
                    continue;
                };
                let words = words[at..].iter().filter(|word| !word.is_empty());
                let end = |word: &&&str| !["||", ">-"].contains(*word);
                let parsed = Cli::try_parse_from(words.take_while(end));
                assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("wrong"));
                lines += 1;
            }
        }
        assert_eq!(lines, 11, "no line is overlooked");
    }

    #[test]
    fn wrong_usage_ends_with_status_2() {
        for line in [
            "coax",
            "coax dance",
            "coax demo --mode node",
            "coax demo --accel warp",
            "coax demo --translation magic",
            "coax build --translation",
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
            "coax test --list --junit x",
            "coax test --partition 1/4",
            "coax test --partition slice:5/4",
            "coax report merge",
            "coax report seconds",
            "coax test hmm --repeat 0",
            "coax test soak --minutes 0",
            "coax test soak --mode all",
            "coax test stall --points 0",
            "coax build everything",
            "coax build kernel --archive x",
            "coax bench dance",
            "coax bench invalidate --json",
            "coax bench fairness --mode all",
            "coax bench --json x migrate",
            "coax bench migrate --rounds 0",
            "coax bench programs --mode all",
            "coax bench programs --rounds 100",
            "coax build kernel --kernel fast",
            "coax run --kernel-tree /nowhere/at-all",
            "coax run --kernel-tree Cargo.toml",
            "coax run --kernel-tree . --kernel base",
            "coax run --build",
            "coax demo --build --kernel debug",
            "coax bench migrate --build",
            "coax run --qemu theirs",
            "coax demo --qemu /nowhere/at-all",
            "coax test vm --qemu src",
            "coax config",
            "coax doctor --json",
            "coax config /nowhere/at-all",
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
        assert_eq!(run.vm.mode, OneMode::Private);
    }

    #[test]
    fn who_translates_is_said_to_all_that_boots_and_leaves_private_memory_out() {
        for command in ["demo", "test", "run", "shell", "bench", "bench fairness"] {
            let line = format!("coax {command} --translation pcie");
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
        let modes = |translation| Modes::All.list(translation);
        assert_eq!(modes(Translation::Virtqueue), Mode::ALL);
        assert_eq!(modes(Translation::Pcie), [Mode::Coherent, Mode::Numa]);
        // Whoever asks for it by name is told.
        let named = Modes::Private.list(Translation::Pcie);
        assert!(Translation::Pcie.can_be_in(named[0]).is_err());
    }

    #[test]
    fn every_sub_command_explains_itself() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}

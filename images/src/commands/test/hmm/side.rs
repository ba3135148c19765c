// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs `hmm-tests` on one of the two drivers, in as many VMs as that takes.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use coax_results::Outcome;

use super::harness::{Output, Ran};
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{complaint, Bytes, LaunchError, Vm, VmConfig};
use coax_images::progress::Progress;
use coax_program::outln;
use coax_program::output::OutputError;

/// System memory: the coherent half of `test_hmm` takes two pieces of it, and the largest test
/// works on 256 MiB, twice.
const MEMORY: Bytes = Bytes::gib(8);
/// Memory of each coax device: four times what the largest test puts into it.
const DEVICE_MEMORY: Bytes = Bytes::gib(1);
/// The tests use two devices in private and two in coherent mode.
const DEVICES: u32 = 4;
/// Pages of 2 MiB set aside: without them, tests of huge pages are skipped.
const HUGE_PAGES: &str = "hugepages=128";
/// Memory that the kernel leaves alone, for the coherent half of `test_hmm`: 1 GiB each, above
/// everything that a boot needs.
const SET_ASIDE: [u64; 2] = [0x1_4000_0000, 0x1_8000_0000];
const SET_ASIDE_BYTES: u64 = 1 << 30;
/// Lines shown of what a failed test said: it says one or two, a benchmark dozens before.
const SHOWN_MESSAGES: usize = 12;
/// Longest life of a VM: the tests take a minute under TCG, several on a busy host, and the harness
/// ends one that hangs after 30 s.
const VM_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Measures speed, for which the test gives itself 120 s: more than kernels with checks take for a
/// fifth of it, and what they would measure is the checks.
const BENCHMARK: &str = "benchmark_thp_migration";

/// Who answers the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The driver of this checkout and four devices.
    Coax,
    /// The kernel's own driver, which plays its devices itself.
    TestHmm,
}

impl Driver {
    /// A VM for it.
    pub fn config(self) -> VmConfig {
        let common = VmConfig {
            memory: MEMORY,
            kernel_args: vec![HUGE_PAGES.into()],
            timeout: Some(VM_LIMIT),
            ..VmConfig::default()
        };
        match self {
            Driver::Coax => VmConfig {
                devices: DEVICES,
                device_memory: DEVICE_MEMORY,
                hmm: true,
                ..common
            },
            Driver::TestHmm => {
                let set_aside = SET_ASIDE.map(|start| format!("memmap=1G${start:#x}"));
                VmConfig {
                    devices: 0,
                    load_driver: false,
                    kernel_args: [common.kernel_args, set_aside.to_vec()].concat(),
                    ..common
                }
            }
        }
    }

    /// What a shell has to do before the devices are there.
    pub fn load(self) -> String {
        match self {
            Driver::Coax => String::new(),
            Driver::TestHmm => {
                let [first, second] = SET_ASIDE;
                let checks = SET_ASIDE.map(in_use_check).concat();
                format!(
                    "{checks}insmod /lib/modules/test_hmm.ko spm_addr_dev0={first:#x} \
                     spm_addr_dev1={second:#x} || exit; "
                )
            }
        }
    }

    /// Runs the tests of these full names.
    fn job(self, names: &[String]) -> Job {
        let load = self.load();
        let script = format!("{load}exec hmm-tests \"$@\" 2>&1");
        let words = ["sh", "-c", &script, "hmm-tests"];
        let selected = names.iter().flat_map(|name| ["-r", name]);
        Job::new(words.into_iter().chain(selected))
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Coax => "coax",
            Driver::TestHmm => "test_hmm",
        })
    }
}

/// Has a shell end unless the memory at `start` is set aside and used for nothing.
fn in_use_check(start: u64) -> String {
    let end = start + SET_ASIDE_BYTES;
    format!(
        "while IFS=' -' read -r from to _ what; do \
         if [ $((0x$from)) -lt $(({end:#x})) ] && [ $((0x$to)) -ge $(({start:#x})) ] && [ \"$what\" != Reserved ]; \
         then echo \"test_hmm: $from-$to is $what, not set aside\" >&2; exit 1; fi; \
         done < /proc/iomem; "
    )
}

/// Why `test_hmm` makes the kernel complain so, where that is known.
pub fn known_defect(complaint: &str) -> Option<&'static str> {
    complaint.contains("at memremap_pages+").then_some(
        "(its coherent devices have 256 MiB each, in small pages, at an address that it is told; for each huge page \
         it adds the same memory once more, which is refused, and then takes small pages until there are none)",
    )
}

/// What came of the tests on one driver.
#[derive(Debug, Default)]
pub struct Side {
    /// All tests that were to run.
    pub listed: Vec<String>,
    /// Those that ran, once each.
    pub ran: Vec<Ran>,
    /// Console lines by which the kernel complained.
    pub kernel_warnings: usize,
    /// VMs that did not end well, each with its evidence.
    pub bad_ends: Vec<LaunchError>,
}

/// The full names of all tests that contain one of `filter`, if there is any; on a kernel with checks not
/// that of the benchmark.
///
/// # Errors
///
/// The program does not list its tests, or there is no such test.
pub fn listed(images: &Images, filter: &[String]) -> Result<Vec<String>> {
    // Listing needs no device, so it is done here.
    let mut program = Command::new(&images.hmm_tests);
    let output = program.arg("-l").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("Cannot start {}", images.hmm_tests.display()))?;
    let mut list = Output::default();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().for_each(|line| list.line(line));
    let mut names = list.listed();
    let left_out = (images.time_factor > 1).then_some(BENCHMARK);
    names.retain(|name| name.rsplit('.').next() != left_out);
    let wanted = |name: &String| filter.iter().any(|text| name.contains(text.as_str()));
    names.retain(|name| filter.is_empty() || wanted(name));
    ensure!(
        !names.is_empty(),
        "The kernel has no test of a name like {}",
        filter.join(" or ")
    );
    Ok(names)
}

/// Runs these tests. One that takes the VM with it has failed, and those after it run in another.
///
/// # Errors
///
/// A VM could not be started, or no test ran in it.
pub fn run(images: &Images, driver: Driver, names: &[String]) -> Result<Side> {
    let mut side = Side {
        listed: names.to_vec(),
        ..Side::default()
    };
    let mut left = names.to_vec();
    loop {
        let job = driver.job(&left);
        run_vm(images, driver, &job, &mut side)?;
        left.retain(|name| !side.ran.iter().any(|ran| ran.name == *name));
        if left.is_empty() {
            return Ok(side);
        }
    }
}

/// Runs the tests of this job in one VM.
fn run_vm(images: &Images, driver: Driver, job: &Job, side: &mut Side) -> Result<()> {
    let mut progress = Progress::start(&format!("The kernel's tests on {driver}"));
    let vm = Vm::start(images, &driver.config(), job)
        .with_context(|| format!("Cannot start a VM for the tests on {driver}"))?;
    let mut output = Output::default();
    let mut seen = 0;
    let ended = vm.wait_watching(|line| {
        output.line(line);
        for ran in output.ran().iter().skip(seen) {
            if ran.verdict == Outcome::Failed {
                progress.make_room();
                show(ran)?;
            }
        }
        seen = output.ran().len();
        if let Some(planned) = output.planned() {
            progress.update(seen as u64, planned as u64);
        }
        Ok(None)
    });
    progress.finish();

    let ran = output.finish("the VM ended, or the tests stopped, during this one");
    ran.iter().skip(seen).try_for_each(show)?;
    let nothing_ran = ran.is_empty();
    side.ran.extend(ran);
    match ended {
        Ok(outcome) if nothing_ran => bail!(
            "No test ran on {driver}: {}\n{}{}",
            outcome.exit,
            outcome.stdout_text(),
            outcome.stderr_text()
        ),
        Ok(_) => {}
        Err(error) if nothing_ran => {
            return Err(error).with_context(|| format!("No test ran on {driver}"))
        }
        Err(error) => {
            if let LaunchError::Failed { evidence, .. } = &error {
                let lines = evidence.console.lines();
                side.kernel_warnings += lines.filter(|line| complaint(line)).count();
            }
            side.bad_ends.push(error);
        }
    }
    Ok(())
}

/// A failed test with the last of what it said.
fn show(ran: &Ran) -> Result<(), OutputError> {
    outln!("  {} failed:", ran.name)?;
    let left_out = ran.messages.len().saturating_sub(SHOWN_MESSAGES);
    for line in ran.messages.iter().skip(left_out) {
        outln!("    {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_aside_memory_is_what_the_kernels_driver_is_told() {
        let config = Driver::TestHmm.config();
        assert_eq!(
            config.kernel_args,
            [
                "hugepages=128",
                "memmap=1G$0x140000000",
                "memmap=1G$0x180000000"
            ]
        );
        assert_eq!(config.driver(), None);
        let script = Driver::TestHmm.job(&[]).argv[2]
            .to_string_lossy()
            .into_owned();
        assert!(script.contains("spm_addr_dev0=0x140000000 spm_addr_dev1=0x180000000"));
    }

    #[test]
    fn memory_that_is_in_use_is_found_before_the_kernels_driver_takes_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let table = folder.path().join("iomem");
        let ends_with = |lines: &str| {
            std::fs::write(&table, lines).expect("it can be written");
            let script = in_use_check(0x1_4000_0000).replace("/proc/iomem", "\"$0\"");
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(script).arg(&table);
            let output = shell.output().expect("every machine has it");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.success(), said)
        };
        let good = "00100000-bffdffff : System RAM\n  01000000-01ffffff : Kernel code\n\
                    100000000-13fffffff : System RAM\n140000000-1bfffffff : Reserved\n\
                    1c0000000-23fffffff : System RAM\n";
        assert_eq!(ends_with(good), (true, String::new()));
        for bad in [
            "100000000-140000fff : System RAM\n",
            "140000000-1bfffffff : Reserved\n  150000000-15fffffff : 0000:01:00.0\n",
            "17fffffff-1bfffffff : PCI Bus 0000:00\n",
        ] {
            let (passed, said) = ends_with(bad);
            assert!(!passed && said.contains("not set aside"), "{bad}: {said}");
        }
    }

    #[test]
    fn the_second_use_of_set_aside_memory_is_told_from_other_complaints() {
        let known = "[   90.967034] WARNING: mm/memremap.c:158 at memremap_pages+0x4ec/0x5a0, CPU#1: hmm-tests/147";
        assert!(known_defect(known).is_some());
        assert!(
            known_defect("[ 1.0] WARNING: mm/migrate_device.c:1 at migrate_vma_setup+0x1/0x2")
                .is_none()
        );
    }

    #[test]
    fn tests_are_selected_by_their_full_names() {
        let names = ["a.b.c".into(), "a.b.d".into()];
        let job = Driver::Coax.job(&names);
        assert_eq!(job.argv[4..], ["-r", "a.b.c", "-r", "a.b.d"]);
        assert!(!job.argv[2].to_string_lossy().contains("insmod"));
    }

    #[test]
    fn coax_has_four_devices_that_offer_the_interface() {
        let driver = Driver::Coax.config().driver();
        let driver = driver.expect("init loads it");
        assert!(driver.parameters.contains(&"hmm=1".into()));
        assert!(driver.devices.contains(&"hmm_dmirror3".into()));
    }
}

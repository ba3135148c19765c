// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the machine that somebody wants can have the device, and what it needs beside it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use coax_images::job::Mode;
use coax_images::launch::VmConfig;

use crate::caller::Caller;

/// The identifier of system memory, where the caller names none.
const MEMORY_ID: &str = "coax-memory";
/// What QEMU gives a machine whose memory nobody says (`hw/core/machine.c`).
const USUAL_MEMORY: &str = "128M";
/// The word on a kernel's command line without which it leaves `lock` out where there is one CPU.
const KEEP_LOCK: &str = "noreplace-smp";

/// Options for the machine, to stand behind those of the caller.
///
/// # Errors
///
/// The machine cannot have the device: one line with the reason and the way out.
pub fn machine(caller: &Caller, config: &VmConfig) -> Result<Vec<String>, String> {
    check_machine(caller)?;
    let mut words = cpus(caller)?;
    words.extend(memory(caller, config)?);
    Ok(words)
}

fn check_machine(caller: &Caller) -> Result<(), String> {
    match caller.machine() {
        Some(name) if name == "q35" || name.starts_with("pc-q35") => Ok(()),
        None => Err("the machine that QEMU takes when none is named (i440fx) has no PCI Express: add -machine q35".into()),
        Some(name) => Err(format!("the machine {name} has no PCI Express slot for it: use -machine q35")),
    }
}

/// The device does atomic operations on the guest's memory, which need a guest that locks its own.
fn cpus(caller: &Caller) -> Result<Vec<String>, String> {
    if caller.cpus()? > 1 {
        return Ok(Vec::new());
    }
    let mut words = caller.append().split_whitespace();
    if words.any(|word| word == KEEP_LOCK) {
        // TCG itself leaves locks out where there can be one only.
        return Ok(["-smp", "maxcpus=2"].map(Into::into).into());
    }
    Err(format!(
        "with one virtual CPU Linux leaves locks out of atomic operations, and the device does such on the same \
         memory: add -smp 2, or {KEEP_LOCK} to the kernel's command line in -append"
    ))
}

/// The back end maps the guest's memory, so it must be shared.
fn memory(caller: &Caller, config: &VmConfig) -> Result<Vec<String>, String> {
    if caller.has_memory_path() {
        return Err("-mem-path makes memory that is not shared: use -object memory-backend-file,share=on and -machine memory-backend= for it".into());
    }
    let node_memory = caller.node_memory();
    let given = node_memory.iter().copied().chain(caller.machine_memory());
    let mut is_given = false;
    for id in given {
        is_given = true;
        let memory = caller.memory(id).ok_or_else(|| {
            format!("there is no -object with id={id}, which is to be the memory")
        })?;
        if !memory.shared {
            return Err(format!(
                "the guest's memory ({}, id={id}) is not shared with the device: add share=on to that -object \
                 (libvirt: <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>)",
                memory.kind
            ));
        }
    }
    if config.mode == Mode::Numa && (is_given || caller.has_nodes()) {
        return Err("COAX_NODE=1 makes the memory nodes itself: leave out -numa, and memory-backend= of -machine".into());
    }
    if is_given {
        return Ok(Vec::new());
    }
    let size = caller.memory_size().unwrap_or(USUAL_MEMORY);
    // QEMU takes a number without a unit for mebibytes here, and for bytes there.
    let unit = if size.ends_with(|c: char| c.is_ascii_digit()) {
        "M"
    } else {
        ""
    };
    let object = format!("memory-backend-memfd,id={MEMORY_ID},size={size}{unit},share=on");
    let mut words: Vec<String> = ["-object", &object].map(Into::into).into();
    match config.mode {
        Mode::Numa => words.extend([
            "-numa".into(),
            format!(
                "node,nodeid=0,cpus=0-{},memdev={MEMORY_ID}",
                caller.possible_cpus()?.saturating_sub(1)
            ),
        ]),
        Mode::Private | Mode::Coherent => {
            words.extend(["-machine".into(), format!("memory-backend={MEMORY_ID}")])
        }
    }
    Ok(words)
}

/// Says in one line why KVM, where nothing else will do, cannot be had at `path`, if it cannot.
///
/// # Errors
///
/// That line, with the way out.
pub fn check_kvm(caller: &Caller, path: &Path) -> Result<(), String> {
    if !caller.takes_only_kvm() {
        return Ok(());
    }
    match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(format!(
            "no right to use {}: become a member of its group (usually kvm), or use -accel tcg,thread=multi",
            path.display()
        )),
        Err(error) => Err(format!("cannot use {}: {error}; use -accel tcg,thread=multi", path.display())),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::words;

    fn fit(line: &str) -> Result<String, String> {
        fit_in(Mode::Private, line)
    }

    fn fit_in(mode: Mode, line: &str) -> Result<String, String> {
        let config = VmConfig {
            mode,
            ..VmConfig::default()
        };
        machine(&Caller::read(&words(line)), &config).map(|words| words.join(" "))
    }

    #[test]
    fn memory_that_nobody_says_is_made_shared() {
        let with = |size: &str| {
            format!("-object memory-backend-memfd,id=coax-memory,size={size},share=on -machine memory-backend=coax-memory")
        };
        assert_eq!(fit("-M q35 -smp 2 -m 2G"), Ok(with("2G")));
        assert_eq!(fit("-M q35 -smp 2 -m 2048"), Ok(with("2048M")));
        assert_eq!(
            fit("-M q35 -smp 2 -m size=1G,slots=2,maxmem=4G"),
            Ok(with("1G"))
        );
        assert_eq!(fit("-M q35 -smp 2"), Ok(with("128M")));
    }

    #[test]
    fn shared_memory_of_the_callers_stays() {
        let line =
            "-M q35,memory-backend=m -smp 2 -object memory-backend-memfd,id=m,size=1G,share=on";
        assert_eq!(fit(line), Ok(String::new()));
        let line = "-M q35 -smp 2 -object memory-backend-file,id=a,share=on,mem-path=/dev/shm/x,size=1G -numa node,memdev=a";
        assert_eq!(fit(line), Ok(String::new()));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (line, named) in [
            ("-smp 2", "-machine q35"),
            ("-M pc -smp 2", "pc"),
            ("-M microvm,pcie=on -smp 2", "microvm"),
            ("-M q35", "-smp 2"),
            ("-M q35 -smp 2 -mem-path /dev/shm", "-mem-path"),
            (
                "-M q35,memory-backend=m -smp 2 -object memory-backend-ram,id=m,size=1G",
                "id=m",
            ),
            ("-M q35,memory-backend=m -smp 2", "id=m"),
            (
                "-M q35 -smp 2 -object memory-backend-ram,id=n,size=1G -numa node,memdev=n",
                "id=n",
            ),
        ] {
            let error = fit(line).expect_err(line);
            assert!(
                error.contains(named) && !error.contains('\n'),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn one_virtual_cpu_that_locks_is_one_of_two_possible() {
        let line = "-M q35,memory-backend=m -object memory-backend-memfd,id=m,size=1G,share=on -append noreplace-smp";
        assert_eq!(fit(line), Ok("-smp maxcpus=2".into()));
    }

    #[test]
    fn a_node_for_the_device_needs_one_for_the_system() {
        let line = fit_in(Mode::Numa, "-M q35 -smp 2 -m 1G").expect("nodes");
        assert!(
            line.ends_with("-numa node,nodeid=0,cpus=0-1,memdev=coax-memory"),
            "{line}"
        );
        assert!(fit_in(Mode::Numa, "-M q35 -smp 2 -numa node").is_err());
    }

    #[test]
    fn kvm_that_cannot_be_had_is_named() {
        let caller = |line| Caller::read(&words(line));
        let nowhere = Path::new("/dev/null/kvm");
        assert!(check_kvm(&caller("-accel kvm -accel tcg"), nowhere).is_ok());
        let error = check_kvm(&caller("-enable-kvm"), nowhere).expect_err("no such file");
        assert!(
            error.contains("/dev/null/kvm") && error.contains("-accel tcg"),
            "{error}"
        );
    }
}

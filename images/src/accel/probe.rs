// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The proof that KVM works: a virtual CPU runs VEX-coded instructions in protected mode.
// UNSAFETY: handing memory to a VM is an unsafe call of kvm-ioctls; it is the only one here.
#![expect(unsafe_code)]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_segment, kvm_userspace_memory_region, CpuId, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_READONLY,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};

/// Longest proof: the program below takes microseconds.
const LIMIT: Duration = Duration::from_secs(2);
/// Guest physical address of the program.
const CODE_GPA: u64 = 0x1000;
const PAGE: usize = 4096;
/// Port on which the program reports its result.
const RESULT_PORT: u16 = 0x80;
/// 2 × the constant in the program, computed by VEX-coded instructions.
const RESULT: u32 = 0x2468_acf0;
/// Exits looked at before the virtual CPU is given up.
const MAX_EXITS: usize = 8;

/// CPUID.01H:ECX: AVX.
const CPUID_1_ECX_AVX: u32 = 1 << 28;
/// CPUID.07H.0:EBX: BMI2.
const CPUID_7_EBX_BMI2: u32 = 1 << 8;
const CR0_PE: u64 = 1 << 0;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_OSXSAVE: u64 = 1 << 18;

/// 32-bit code at [`CODE_GPA`] for virtual CPUs with AVX.
#[rustfmt::skip]
const AVX_CODE: &[u8] = &[
    0x31, 0xc9,                                     // xor ecx, ecx
    0x31, 0xd2,                                     // xor edx, edx
    0xb8, 0x07, 0x00, 0x00, 0x00,                   // mov eax, 7 (x87, SSE, AVX)
    0x0f, 0x01, 0xd1,                               // xsetbv
    0xc5, 0xfe, 0x6f, 0x05, 0x00, 0x11, 0x00, 0x00, // vmovdqu ymm0, [0x1100]
    0xc5, 0xf9, 0xfe, 0xc0,                         // vpaddd xmm0, xmm0, xmm0
    0xc5, 0xf9, 0x7e, 0xc0,                         // vmovd eax, xmm0
    0xe7, 0x80,                                     // out 0x80, eax
    0xc5, 0xf8, 0x77,                               // vzeroupper
    0xf4,                                           // hlt
];
/// The same for those with BMI2 alone: VEX coding without vector state.
#[rustfmt::skip]
const BMI2_CODE: &[u8] = &[
    0xb9, 0x01, 0x00, 0x00, 0x00,                   // mov ecx, 1
    0xc4, 0xe2, 0x71, 0xf7, 0x05, 0x00, 0x11, 0x00, 0x00, // shlx eax, [0x1100], ecx
    0xe7, 0x80,                                     // out 0x80, eax
    0xf4,                                           // hlt
];
/// Offset of the constant that the program loads.
const DATA_OFFSET: usize = 0x100;

/// What the virtual CPU was seen to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It wrote this value to [`RESULT_PORT`].
    Result(u32),
    /// It halted.
    Halt,
    /// Anything else.
    Other(String),
}

/// Proves KVM, or says what it does not do.
pub fn prove_kvm() -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("kvm-proof".into())
        .spawn(move || sender.send(run()))
        .map_err(|error| format!("no thread for the proof: {error}"))?;
    match receiver.recv_timeout(LIMIT) {
        Ok(seen) => judge(&seen?),
        Err(_) => Err(format!("a virtual CPU was not done after {LIMIT:?}")),
    }
}

/// Whether the virtual CPU did exactly what the program says.
fn judge(seen: &[Seen]) -> Result<(), String> {
    match seen {
        [Seen::Result(RESULT), Seen::Halt] => Ok(()),
        [Seen::Result(value), ..] if *value != RESULT => Err(format!(
            "VEX-coded instructions gave {value:#x} instead of {RESULT:#x}"
        )),
        [.., Seen::Other(what)] => Err(format!("a virtual CPU stopped with {what}")),
        _ => Err(format!("a virtual CPU strayed: {seen:?}")),
    }
}

/// One page with the program, page-aligned.
#[repr(align(4096))]
struct CodePage([u8; PAGE]);

fn code_page(code: &[u8]) -> Box<CodePage> {
    let mut page = Box::new(CodePage([0xf4; PAGE]));
    page.0[..code.len()].copy_from_slice(code);
    page.0[DATA_OFFSET..DATA_OFFSET + 4].copy_from_slice(&(RESULT / 2).to_le_bytes());
    page
}

/// Runs the program and reports what the virtual CPU did.
fn run() -> Result<Vec<Seen>, String> {
    let failed = |what: &'static str| move |error| format!("{what}: {error}");
    let kvm = Kvm::new().map_err(failed("/dev/kvm"))?;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("supported CPUID"))?;
    let code = choose_code(&cpuid)
        .ok_or("virtual CPUs have neither AVX nor BMI2, one of which a proof needs")?;
    let page = code_page(code);
    let vm = kvm.create_vm().map_err(failed("a VM"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: KVM_MEM_READONLY,
        guest_phys_addr: CODE_GPA,
        memory_size: size_of::<CodePage>() as u64,
        userspace_addr: (&raw const *page) as u64,
    };
    // SAFETY:
    // - The region is exactly the page that `page` owns, aligned by its type.
    // - `page` is declared before `vm` and `vcpu`, so it is dropped after them.
    // - The guest cannot write to it: the slot is read-only.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("guest memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("a virtual CPU"))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(failed("CPUID of a virtual CPU"))?;
    enter_protected_mode(&vcpu).map_err(failed("registers of a virtual CPU"))?;

    let mut seen = Vec::new();
    while seen.len() < MAX_EXITS {
        let next = match vcpu.run().map_err(failed("running a virtual CPU"))? {
            VcpuExit::IoOut(RESULT_PORT, &[a, b, c, d]) => {
                Seen::Result(u32::from_le_bytes([a, b, c, d]))
            }
            VcpuExit::Hlt => Seen::Halt,
            other => Seen::Other(format!("{other:?}")),
        };
        let goes_on = matches!(next, Seen::Result(_));
        seen.push(next);
        if !goes_on {
            break;
        }
    }
    Ok(seen)
}

/// The program for virtual CPUs with these features.
fn choose_code(cpuid: &CpuId) -> Option<&'static [u8]> {
    let has = |function, of: fn(&kvm_cpuid_entry2) -> u32, bit| {
        let mut leaves = cpuid.as_slice().iter();
        leaves.any(|leaf| leaf.function == function && leaf.index == 0 && of(leaf) & bit != 0)
    };
    if has(1, |leaf| leaf.ecx, CPUID_1_ECX_AVX) {
        return Some(AVX_CODE);
    }
    has(7, |leaf| leaf.ebx, CPUID_7_EBX_BMI2).then_some(BMI2_CODE)
}

/// Flat 32-bit segments, no paging, vector state on.
fn enter_protected_mode(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let flat = |type_, selector| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..kvm_segment::default()
    };
    // Types of the Intel SDM, volume 3, section 3.4.5.1: 11 execute/read, 3 read/write, accessed.
    sregs.cs = flat(11, 0x8);
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = flat(3, 0x10);
    }
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET;
    sregs.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    regs.rip = CODE_GPA;
    // Bit 1 of the flags is always set.
    regs.rflags = 2;
    vcpu.set_regs(&regs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_result_and_a_halt_are_a_proof() {
        assert_eq!(judge(&[Seen::Result(RESULT), Seen::Halt]), Ok(()));
    }

    #[test]
    fn a_wrong_result_is_no_proof() {
        assert!(judge(&[Seen::Result(1), Seen::Halt]).is_err());
    }

    #[test]
    fn an_internal_error_is_named() {
        let error = judge(&[Seen::Other("InternalError".into())]).expect_err("no result");
        assert!(error.contains("InternalError"));
    }

    #[test]
    fn a_halt_without_result_is_no_proof() {
        assert!(judge(&[Seen::Halt]).is_err());
        assert!(judge(&[]).is_err());
    }

    #[test]
    fn the_proof_ends_whatever_this_machine_can_do() {
        // Whether KVM works is the machine's matter; that the question is answered is ours.
        let _ = prove_kvm();
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The C header agrees with the Rust side, and every symbol in it links.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use coax::abi::{uapi, wire};
use coax::ffi::{
    coax_command, coax_completion, coax_gemm, coax_list_layout, coax_list_result, coax_migrated,
    coax_tree_layout, coax_tree_result,
};

/// Writes a check for the size of a structure and for the offset of each of its fields.
macro_rules! check_struct {
    ($out:expr, $c:literal, $rust:ty: $($field:ident)*) => {{
        check(&mut $out, concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as u64);
        $(check(
            &mut $out,
            concat!("offsetof(struct ", $c, ", ", stringify!($field), ")"),
            offset_of!($rust, $field) as u64,
        );)*
    }};
}

/// Writes a check for each named number, `COAX_` before it in C.
macro_rules! check_numbers {
    ($out:expr, $module:ident: $($name:ident)*) => {
        $(check(&mut $out, concat!("COAX_", stringify!($name)), u64::from($module::$name));)*
    };
}

fn check(out: &mut String, expression: &str, value: u64) {
    writeln!(out, "COAX_CHECK({expression}, {value}ull);").expect("strings take all text");
}

/// All that Rust knows about the header, as C.
fn expectations() -> String {
    let mut out = String::new();
    check_struct!(out, "coax_ioc_info", uapi::Info: version mode max_contexts command_queues
        device_pages free_pages first_pfn node policy);
    check_struct!(out, "coax_ioc_submit", uapi::Submit: opcode reserved arg id);
    check_struct!(out, "coax_ioc_wait", uapi::Wait: id timeout_ms status fault_va fault_access
        reserved bytes_done page_requests result);
    check_struct!(out, "coax_ioc_migrate", uapi::Migrate: addr len direction pid moved already
        left);
    check_struct!(out, "coax_ioc_residency", uapi::Residency: addr len vector pages);
    check_struct!(out, "coax_ioc_policy", uapi::Policy: policy fault_around);
    check_struct!(out, "coax_ioc_advise", uapi::Advise: addr len policy fault_around);
    check_struct!(out, "coax_ioc_policy_at", uapi::PolicyAt: addr end policy fault_around advised
        reserved);
    check_struct!(out, "coax_ioc_stats", uapi::Stats: context_page_requests context_to_device
        context_commands context_invalidations contexts page_requests translation_requests
        responses_success responses_invalid responses_failure invalidations to_device_fault
        to_device_request to_system_fault to_system_request to_system_evict device_full
        device_errors first_migration_ns device);
    check_struct!(out, "coax_command", coax_command: opcode reserved arg);
    check_struct!(out, "coax_completion", coax_completion: status fault_access fault_va
        bytes_done page_requests result);
    check_struct!(out, "coax_list_layout", coax_list_layout: next value max_nodes);
    check_struct!(out, "coax_list_result", coax_list_result: sum nodes);
    check_struct!(out, "coax_tree_layout", coax_tree_layout: key left right max_depth);
    check_struct!(out, "coax_tree_result", coax_tree_result: node levels);
    check_struct!(out, "coax_gemm", coax_gemm: m n k lda ldb ldc flags);
    check_struct!(out, "coax_migrated", coax_migrated: moved already left);

    check_numbers!(out, uapi: IOC_INFO IOC_SUBMIT IOC_WAIT IOC_MIGRATE IOC_RESIDENCY IOC_POLICY
        IOC_STATS IOC_RESET IOC_ADVISE IOC_POLICY_AT UAPI_VERSION MAX_RANGE_BYTES MODE_PRIVATE MODE_COHERENT MODE_NUMA NO_NODE
        RESIDENT_NONE RESIDENT_SYSTEM RESIDENT_DEVICE RESIDENT_FILE POLICY_ON_FAULT
        POLICY_ON_REQUEST POLICY_NEVER POLICY_CONTEXT MIGRATE_TO_DEVICE MIGRATE_TO_SYSTEM);
    check_numbers!(out, wire: PAGE_SIZE OP_NOP OP_COPY OP_FILL OP_SHA256 OP_HISTOGRAM OP_LIST_SUM
        OP_TREE_SEARCH OP_SGEMM OP_DGEMM OP_FETCH_ADD OP_COMPARE_SWAP OP_COPY_ROWS GEMM_TRANS_A GEMM_TRANS_B GEMM_ROW_MAJOR STATUS_OK
        STATUS_BAD_MESSAGE STATUS_UNKNOWN_OPCODE STATUS_BAD_CONTEXT STATUS_BAD_ARGUMENT
        STATUS_FAULT STATUS_RESPONSE_FAILURE STATUS_ABORTED STATUS_BAD_GPA STATUS_BUSY
        STATUS_BAD_DATA ACCESS_READ ACCESS_WRITE ACCESS_ATOMIC);
    check(&mut out, "COAX_COMMAND_ARGS", wire::COMMAND_ARGS as u64);
    check(&mut out, "COAX_RESULT_BYTES", wire::RESULT_BYTES as u64);
    check(&mut out, "COAX_MAX_IN_FLIGHT", uapi::MAX_IN_FLIGHT as u64);
    check(&mut out, "COAX_MAX_ADVISED", uapi::MAX_ADVISED as u64);
    out
}

/// Folder where cargo put the libraries: that of this test, or the one above it.
fn library_folder() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    test.ancestors()
        .skip(1)
        .take(2)
        .find(|folder| folder.join("libcoax.a").exists())
        .expect("cargo builds the static library with the tests")
        .to_owned()
}

/// Compiles `c_abi.c` with the link arguments and runs it.
fn compile_and_run(link: &[&str]) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    std::fs::write(scratch.path().join("expected.h"), expectations()).expect("expected.h");
    let program = scratch.path().join("c_abi");
    let folder = library_folder();
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(scratch.path())
        .arg("-I")
        .arg(package.join("include"))
        .arg(package.join("tests/c_abi.c"))
        .arg("-o")
        .arg(&program)
        .arg(format!("-L{}", folder.display()))
        .args(link)
        .output()
        .expect("a C compiler");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = Command::new(&program)
        .env("LD_LIBRARY_PATH", &folder)
        .output()
        .expect("the program just built");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The system libraries are those that `rustc --print native-static-libs` names.
#[test]
fn header_matches_and_every_symbol_links_statically() {
    compile_and_run(&[
        "-l:libcoax.a",
        "-lgcc_s",
        "-lutil",
        "-lpthread",
        "-lm",
        "-ldl",
    ]);
}

#[test]
fn header_matches_and_every_symbol_links_dynamically() {
    compile_and_run(&["-l:libcoax.so"]);
}

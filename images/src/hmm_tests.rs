// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds `hmm-tests`, the kernel's own test of this subject, from the guest kernel's source.
//!
//! The kernel's Makefile for its memory tests builds dozens of programs, with libraries that these
//! tests do not need; three files and the headers of the source tree are enough.

use std::path::Path;

use anyhow::Result;

use crate::kernel::Kernel;
use crate::tool;

/// Folder of the tests in the source.
const FOLDER: &str = "tools/testing/selftests/mm";
/// The tests, and what they share with other tests, in as many files as the kernel's version has for it.
const FILES: &[&str] = &["hmm-tests.c", "vm_util.c", "hugepage_settings.c"];
/// Where the harness and the interface of `test_hmm` are.
const INCLUDED: &[&str] = &["tools/testing/selftests", "."];
/// The kernel's interface to programs, for hosts whose headers are older.
const KERNEL_HEADERS: &str = "tools/include/uapi";
/// Those of the kernel's Makefile but for warnings, which are the kernel's business; static, since
/// the guest has no libraries.
const FLAGS: &[&str] = &[
    "-static",
    "-O2",
    "-w",
    "-D_GNU_SOURCE=",
    "-U_FORTIFY_SOURCE",
    "-s",
];

/// What of the source the program is made of, apart from headers of the kernel.
pub const INPUTS: &[&str] = &[
    "tools/testing/selftests/mm/hmm-tests.c",
    "tools/testing/selftests/mm/vm_util.c",
    "tools/testing/selftests/mm/vm_util.h",
    "tools/testing/selftests/mm/hugepage_settings.c",
    "tools/testing/selftests/mm/hugepage_settings.h",
    "tools/testing/selftests/kselftest_harness.h",
];

/// Builds the tests of `kernel` as `program`.
///
/// # Errors
///
/// Those of the compiler, with the log's place.
pub fn build(kernel: &Kernel, program: &Path, log: &Path) -> Result<()> {
    let source = &kernel.source;
    let mut compiler = tool::builder("cc");
    // Messages of the tests name their file as it is given here.
    let there = FILES
        .iter()
        .filter(|file| source.join(FOLDER).join(file).exists());
    compiler.args(there).current_dir(source.join(FOLDER));
    compiler.args(FLAGS);
    for included in INCLUDED {
        compiler.arg("-I").arg(source.join(included));
    }
    compiler.arg("-isystem").arg(source.join(KERNEL_HEADERS));
    compiler.arg("-o").arg(program);
    compiler.args(["-lpthread", "-lrt", "-lm"]);
    tool::run_logged(&mut compiler, "Building the kernel's tests", log, |_| {})
}

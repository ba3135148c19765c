// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tests of `coax run` and `coax shell` as users call them: programs of this machine in a guest.

mod ends;
mod front;
mod machine;
mod parts;
mod tree;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use coax_images::archive;
use coax_images::images::Which;
use coax_images::kernel;
use coax_images::machine::Translation;
use coax_program::outln;
use coax_program::output::OutputError;
use coax_results::{Outcome, TestResult};

use super::part::Part;
use super::results::Results;
use crate::cli::{OneMode, Test};

/// One call and what is to come of it.
struct Check {
    name: &'static str,
    shows: &'static str,
    /// Arguments of `coax`; U+FFFD stands for a byte that is no text, here and in the output.
    args: &'static [&'static str],
    input: &'static str,
    status: i32,
    output: &'static str,
    /// What standard error has to end in, behind what is said of the VM.
    error: &'static str,
}

const CHECKS: &[Check] = &[
    Check {
        name: "run.input_output_status_and_folder_come_through",
        shows: "a dynamic program reads, writes and starts where the caller is",
        args: &[
            "run",
            "--root",
            "/",
            "--env",
            "WORD=a b",
            "--",
            "sh",
            "-c",
            "cat; cat file; echo \"$WORD\"; echo new > file; echo error >&2; exit 7",
        ],
        input: "input\n",
        status: 7,
        output: "input\nas it was\na b\n",
        error: "error\n",
    },
    Check {
        name: "run.a_signal_becomes_a_status",
        shows: "128 and the signal",
        args: &["run", "--root", "/", "--", "sh", "-c", "kill -KILL $$"],
        input: "",
        status: 128 + 9,
        output: "",
        error: "",
    },
    Check {
        name: "run.a_real_time_signal_becomes_a_status_and_disturbs_nobody",
        shows: "128 and the signal, after an orphan that ended so",
        args: &[
            "run",
            "--",
            "sh",
            "-c",
            "orphan=$(sh -c 'sh -c \"kill -40 \\$\\$\" >/dev/null 2>&1 & echo $!'); \
             while [ -d /proc/$orphan ]; do :; done; echo on; kill -40 $$",
        ],
        input: "",
        status: 128 + 40,
        output: "on\n",
        error: "",
    },
    Check {
        name: "run.the_small_root_has_what_programs_go_by",
        shows: "/dev/fd, the guest's own name, and a root that is not for all to write",
        args: &[
            "run",
            "--",
            "sh",
            "-c",
            "cat /dev/stdin; echo out >/dev/stdout; ping -c 1 -q $(hostname) >/dev/null && echo up; \
             stat -c %a / /run/lock",
        ],
        input: "in\n",
        status: 0,
        output: "in\nout\nup\n755\n1777\n",
        error: "",
    },
    Check {
        name: "run.names_need_be_no_text",
        shows: "a folder, a variable and a word with a byte that is no text",
        args: &[
            "run",
            "--root",
            "/",
            "--env",
            "WORD=\u{fffd}",
            "--",
            "sh",
            "-c",
            "cat file; basename \"$PWD\"; echo \"$WORD\" \"$1\"",
            "sh",
            "\u{fffd}",
        ],
        input: "",
        status: 0,
        output: "as it was\nodd\u{fffd}\n\u{fffd} \u{fffd}\n",
        error: "",
    },
    Check {
        name: "run.a_program_that_is_not_there_is_named",
        shows: "status 127, the program, and where it was looked for",
        args: &["run", "--root", "/", "--", "no-such-program"],
        input: "",
        status: 127,
        output: "",
        error: "coax: there is no program no-such-program in the tree, in none of \
                /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/coax/bin\n",
    },
    Check {
        name: "run.a_tree_without_anything_has_the_guests_programs",
        shows: "a folder with a file, and links for /tmp and /run, as root file system",
        args: &[
            "run",
            "--root",
            "..",
            "--",
            "sh",
            "-c",
            "pwd; cat file; : > /tmp/new && test -e /tree/run/coax/bin && \
             exec coaxctl info >/dev/null",
        ],
        input: "",
        status: 0,
        output: "/odd\u{fffd}\nas it was\n",
        error: "",
    },
    Check {
        name: "run.a_warning_of_a_program_is_not_the_kernels",
        shows: "a line on the console that looks like a complaint",
        args: &[
            "run",
            "--",
            "sh",
            "-c",
            "echo 'WARNING: of a program' > /dev/console",
        ],
        input: "",
        status: 0,
        output: "",
        error: "",
    },
    Check {
        name: "run.a_shell_reads_commands",
        shows: "`coax shell` without a terminal, with the guest's programs in reach",
        args: &["shell"],
        input: "cat file\ncommand -v coax\nexit 5\n",
        status: 5,
        output: "as it was\n/usr/local/bin/coax\n",
        error: "",
    },
];

/// Whether there is something in the filter that is not of here.
pub fn others_wanted(options: &Test) -> bool {
    let filter = &options.filter;
    filter.is_empty() || filter.iter().any(|text| !text.starts_with("run."))
}

/// A test of here.
struct Named<'a> {
    name: &'static str,
    shows: &'static str,
    hold: Box<dyn Fn() -> Result<()> + 'a>,
}

/// Prints the names.
pub fn list(options: &Test) -> Result<(), OutputError> {
    for check in selected(options) {
        outln!("{}: {}", check.name, check.shows)?;
    }
    Ok(())
}

/// Where the results stand.
pub const PATH: &[&str] = &["vm", "run"];

/// The names of those that the filter leaves, in their order.
pub fn names(options: &Test) -> Vec<&'static str> {
    selected(options).map(|check| check.name).collect()
}

/// Runs those that the filter leaves and that belong to this part.
pub fn run(results: &mut Results, options: &Test, part: &Part) -> Result<(), OutputError> {
    for check in selected(options) {
        let test = TestResult::new(PATH, check.name, Outcome::Passed);
        if !part.has(&test.full_name()) {
            continue;
        }
        let began = Instant::now();
        let held = (check.hold)();
        if held.is_ok() {
            outln!("  ok {}", check.name)?;
        }
        results.step(PATH, check.name, began.elapsed(), held);
    }
    Ok(())
}

fn selected(options: &Test) -> impl Iterator<Item = Named<'_>> {
    // Those that have a mode have the default's, and the driver translates for that.
    let is_of_mode = options.mode.is_none_or(|mode| mode == OneMode::Private)
        && options.kernel.which.translation() == Translation::Virtqueue;
    let fits = move |test: &Named| {
        let mut filter = options.filter.iter();
        let named = options.filter.is_empty();
        is_of_mode && (named || filter.any(|text| test.name.contains(text.as_str())))
    };
    let which = &options.kernel.which;
    let calls = CHECKS.iter().map(move |check| Named {
        name: check.name,
        shows: check.shows,
        hold: Box::new(move || hold(which, check)),
    });
    let trials = ends::TRIALS.iter().map(move |(name, shows, hold)| Named {
        name,
        shows,
        hold: Box::new(move || hold(which)),
    });
    let tree = Named {
        name: "run.a_kernel_tree_is_booted_and_left_as_it_is",
        shows: "`--kernel-tree`: the folder that this kernel was built in as a tree of the user's",
        hold: Box::new(move || tree::is_booted(which)),
    };
    // An archive has no kernel tree, and of Debian's kernel none is built whole.
    let is_debian = which.kernel.kernel == Some(kernel::Named::Debian);
    let is_checkout = matches!(archive::here(), Ok(None));
    let has_tree = is_checkout && !is_debian;
    let tree = has_tree.then_some(tree);
    let machine = Named {
        name: "run.the_machine_is_told",
        shows: "what ran, in the line of `run`, and in that of `demo` as in its report",
        hold: Box::new(move || machine::is_told(which)),
    };
    let parts = Named {
        name: "run.parts_of_the_tests_make_the_whole",
        shows: "`test --list --partition`: each test is in one part, in the order of the whole run",
        hold: Box::new(move || parts::make_the_whole(which)),
    };
    let front = Named {
        name: "run.qemu_by_its_own_name_has_the_device",
        shows: "`build front`: a caller's VM with memory as it comes and as libvirt writes it; a microvm is refused",
        hold: Box::new(move || front::stands_for_qemu(which)),
    };
    let options = Named {
        name: "run.a_qemu_of_ones_own_takes_the_options",
        shows: "`qemu-args`: a caller's QEMU with the options, and the back end as it is told",
        hold: Box::new(move || front::options_fit(which)),
    };
    // An archive builds nothing.
    let front = is_checkout.then_some([front, options]);
    calls
        .chain(front.into_iter().flatten())
        .chain(trials)
        .chain(tree)
        .chain([machine, parts])
        .filter(fits)
}

/// Runs the call in a folder with one file, which must not change. Beside it are links for `/tmp` and `/run`,
/// as a tree can have them that is the root of another machine.
fn hold(which: &Which, check: &Check) -> Result<()> {
    let tree = tempfile::tempdir().context("A temporary folder")?;
    let folder = tree.path().join(word("odd\u{fffd}"));
    for folder in [folder.clone(), tree.path().join("tree/run")] {
        std::fs::create_dir_all(folder).context("Making a folder")?;
    }
    for (target, link) in [("/tree/run", "run"), ("/nowhere/at/all", "tmp")] {
        symlink(target, tree.path().join(link)).context("Making a link")?;
    }
    let file = folder.join("file");
    std::fs::write(&file, "as it was\n").context("Writing a file")?;
    let program = std::env::current_exe().context("Where this program is")?;
    let (status, output, error) = call(&program, which, check, &folder)?;
    ensure!(
        status == Some(check.status),
        "{}: status {status:?}, expected {}\n{error}",
        check.name,
        check.status
    );
    ensure!(
        output == check.output,
        "{}: wrote {output:?}, expected {:?}\n{error}",
        check.name,
        check.output
    );
    ensure!(
        error.ends_with(check.error),
        "{}: complained {error:?}, expected {:?} at the end",
        check.name,
        check.error
    );
    let left = std::fs::read_to_string(&file).context("Reading the file")?;
    ensure!(
        left == "as it was\n",
        "{}: the file became {left:?}",
        check.name
    );
    Ok(())
}

/// A word of a check: what stands there for a byte that is no text becomes one.
fn word(text: &str) -> OsString {
    let parts = text.split('\u{fffd}').map(str::as_bytes);
    OsString::from_vec(parts.collect::<Vec<_>>().join(&0xff))
}

/// Status, output and errors of the call.
fn call(
    program: &Path,
    which: &Which,
    check: &Check,
    folder: &Path,
) -> Result<(Option<i32>, String, String)> {
    let context = || format!("Running coax {}", check.args.join(" "));
    let (sub_command, rest) = check.args.split_first().context("A sub-command")?;
    let mut child = Command::new(program)
        .arg(sub_command)
        .args(which.words())
        .args(rest.iter().map(|arg| word(arg)))
        .current_dir(folder)
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A few bytes, which the pipe holds.
        stdin
            .write_all(check.input.as_bytes())
            .with_context(context)?;
    }
    let output = child.wait_with_output().with_context(context)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    ))
}

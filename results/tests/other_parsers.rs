// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reports as parsers read them that are not ours: the kernel's own `kunit_parser.py`, tap.py and node's tap-parser
//! for KTAP, junitparser for JUnit. They are no dependencies: a test of one that is not here is ignored by
//! name. Python modules are looked for by `python3`, node's by `NODE_PATH`, the kernel's parser in the
//! sources that the cache has.
#![expect(
    clippy::print_stdout,
    reason = "it prints as the test harness does, and is none"
)]

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use coax_results::file::Format;
use coax_results::run::Run;
use coax_results::{Outcome, TestResult};

/// A program that reads a document, and how to ask whether it is here.
struct Reader {
    name: &'static str,
    format: Format,
    /// The program, with an argument before the script.
    program: [&'static str; 2],
    /// Ends with an error if something is missing.
    import: &'static str,
    /// Prints `passed failed skipped errors` of the file that is its last argument.
    script: &'static str,
    /// Whether it looks into what is nested.
    nested: bool,
}

const READERS: [Reader; 4] = [
    Reader {
        name: "kunit_parser_reads_all_tests_without_an_error",
        format: Format::Ktap,
        program: ["python3", "-c"],
        import: "import sys; sys.path.insert(0, sys.argv[1]); import kunit_parser",
        script: "\
from kunit_printer import null_printer
test = kunit_parser.parse_run_tests(open(sys.argv[2]).read().splitlines(), null_printer)
c = test.counts
print(c.passed, c.failed, c.skipped, c.errors + c.crashed)",
        nested: true,
    },
    Reader {
        name: "tap_py_reads_one_plan_and_a_result_for_each_suite",
        format: Format::Ktap,
        program: ["python3", "-c"],
        import: "import sys; from tap.parser import Parser",
        script: "\
lines = list(Parser().parse_file(sys.argv[2]))
tests = [line for line in lines if line.category == 'test']
plans = [line.expected_tests for line in lines if line.category == 'plan']
skipped = [test for test in tests if test.skip]
failed = [test for test in tests if not test.ok]
numbers = [test.number for test in tests] == list(range(1, len(tests) + 1))
print(len(tests) - len(skipped) - len(failed), len(failed), len(skipped),
      int(plans != [len(tests)] or not numbers))",
        nested: false,
    },
    Reader {
        name: "node_tap_parser_reads_all_tests_and_plans",
        format: Format::Ktap,
        program: ["node", "-e"],
        import: "const { Parser } = require('tap-parser');",
        script: "
const count = { passed: 0, failed: 0, skipped: 0, errors: 0 };
const watch = (parser) => {
  parser.on('child', watch);
  let children = 0;
  parser.on('child', () => children++);
  parser.on('assert', (test) => {
    if (children > 0) { children--; return; }
    if (test.skip) count.skipped++; else if (test.ok) count.passed++; else count.failed++;
  });
  parser.on('complete', (end) => {
    count.errors += end.failures.filter((failure) => failure.tapError).length;
    if (end.count !== end.plan.end) count.errors++;
  });
};
const parser = new Parser();
watch(parser);
parser.on('complete', () => console.log(count.passed, count.failed, count.skipped, count.errors));
parser.end(require('fs').readFileSync(process.argv[2], 'utf8'));",
        nested: true,
    },
    Reader {
        name: "junitparser_reads_all_tests_of_a_junit_report",
        format: Format::Junit,
        program: ["python3", "-c"],
        import: "import sys; from junitparser import JUnitXml",
        script: "\
xml = JUnitXml.fromfile(sys.argv[2])
tests = [test for suite in xml for test in suite]
skipped = [test for test in tests if test.is_skipped]
failed = [test for test in tests if test.is_failure]
passed = [test for test in tests if test.is_passed]
said = all(test.result[0].text or test.result[0].message for test in failed)
names = {(test.classname, test.name) for test in tests}
print(len(passed), len(failed), len(skipped), int(not said or len(names) != len(tests)
      or (xml.tests, xml.failures, xml.skipped) != (len(tests), len(failed), len(skipped))))",
        nested: true,
    },
];

fn main() -> ExitCode {
    println!("\nrunning {} tests", READERS.len());
    let mut status = ExitCode::SUCCESS;
    for reader in &READERS {
        let outcome = match reader.is_missing() {
            Some(reason) => format!("ignored, {reason}"),
            None => match reader.check() {
                Ok(()) => "ok".to_owned(),
                Err(error) => {
                    println!("{}: {error}", reader.name);
                    status = ExitCode::FAILURE;
                    "FAILED".to_owned()
                }
            },
        };
        println!("test {} ... {outcome}", reader.name);
    }
    status
}

impl Reader {
    fn run(&self, script: &str, file: &str) -> Result<String, String> {
        let [program, option] = self.program;
        let mut command = Command::new(program);
        command.arg(option).arg(script).arg(kunit()).arg(file);
        let output = command
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let errors = text(&output.stderr);
        let mut lines = errors.lines().rev();
        let last = lines.find(|line| line.contains("Error"));
        Err(last.unwrap_or(&errors).trim().to_owned())
    }

    /// Why it cannot be tried.
    fn is_missing(&self) -> Option<String> {
        self.run(self.import, "").err()
    }

    /// Compares what it counts with what is in the run.
    fn check(&self) -> Result<(), String> {
        let run = example();
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("report");
        let file = fs::File::create(&path).map_err(|error| error.to_string())?;
        self.format
            .write(&run, file)
            .map_err(|error| error.to_string())?;
        let path = path.to_str().ok_or("TMPDIR is no text")?;
        let counted = self.run(&format!("{}\n{}", self.import, self.script), path)?;
        let (passed, failed) = run.counts_from(0);
        let wanted = if self.nested {
            format!("{passed} {failed} {} 0", run.skipped())
        } else {
            // `hmm` has a failure, `fresh` was skipped, the others passed.
            "2 1 1 0".to_owned()
        };
        if counted == wanted {
            return Ok(());
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        Err(format!("{counted}, not {wanted}, in\n{text}"))
    }
}

/// The folder of the kernel's parser, in any source that is there.
fn kunit() -> OsString {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let sources = cache.or_else(home).map(|cache| cache.join("coax/source"));
    let entries = sources.and_then(|folder| fs::read_dir(folder).ok());
    let folders = entries.into_iter().flatten().filter_map(Result::ok);
    let mut parsers = folders.map(|entry| entry.path().join("tools/testing/kunit"));
    parsers
        .find(|folder| folder.is_dir())
        .unwrap_or_default()
        .into_os_string()
}

/// A run with everything that a run can have, and words that documents take for their own.
fn example() -> Run {
    let mut run = Run::of("slice:1/4".parse().ok());
    let mut add = |path: &[&str], name: &str, outcome: Outcome, seconds, said: &str| {
        let test = TestResult::new(path, name, outcome).saying(said);
        run.add(TestResult { seconds, ..test });
    };
    let skipped = || Outcome::Skipped("no swap #1".into());
    add(&["unit"], "lints", Outcome::Passed, Some(61.25), "");
    add(
        &["unit", "coax_abi"],
        "wire::tests::sizes",
        Outcome::Passed,
        None,
        "",
    );
    add(
        &["unit", "coax_abi"],
        "# of \"sizes\" <&> - more",
        skipped(),
        None,
        "",
    );
    add(&["unit", "coax_abi"], "coax_abi", Outcome::Passed, None, "");
    let vm = ["vm", "private.standard"];
    add(
        &vm,
        "private.fork.a",
        Outcome::Passed,
        Some(0.004),
        "said in passing",
    );
    add(&vm, "private.fork.b", skipped(), Some(0.1), "");
    add(
        &vm,
        "private.standard.the_vm_ends_well",
        Outcome::Passed,
        Some(20.0),
        "",
    );
    add(&["vm", "numa.tree"], "numa.programs.a", skipped(), None, "");
    let console = "ok 1 a\n1..7\n  not ok 2 b\nKTAP version 1\nSubtest: c\n# Subtest: d\n\
                   Bail out! no\nTAP version 14\n\u{1b}[31m<![CDATA[ ]]> \u{0}";
    add(
        &["hmm"],
        "hmm.hmm_device_private.fork",
        Outcome::Failed,
        Some(1.5),
        console,
    );
    add(
        &["hmm"],
        "hmm.hmm_device_private.fork",
        Outcome::Passed,
        None,
        "",
    );
    add(
        &["fresh"],
        "Debian 12",
        Outcome::Skipped("only root".into()),
        None,
        "",
    );
    run
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stock programs do the same while their memory moves to the device and back.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use coax_program::outln;
use serde_json::Value;

use crate::case;
use crate::case::{CaseResult, Subject, Vm};
use crate::guest::program::{installed, number, run, same_in_a_storm};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "program_storm",
    cases: &[
        case!(
            python_computes_the_same,
            "integers, strings, dictionaries, garbage collection"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            perl_computes_the_same,
            "hashes, sorting, regular expressions"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            gzip_and_sha256sum_agree,
            "a pipe of programs over a file of MB"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(xz_compresses_to_the_same_bytes, "tables of MB at random")
            .in_vm(Vm::Tree)
            .limit(LIMIT),
        case!(
            sqlite_answers_the_same,
            "a database in memory, indexed, sorted, summed"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            gcc_compiles_to_the_same_program,
            "a driver with three children"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            the_end_of_the_program_is_the_storms,
            "status, signal, a missing program, signals handed on"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
        case!(
            rate_and_duration_are_kept,
            "no more pulls than asked for, and none after the time"
        )
        .in_vm(Vm::Tree)
        .limit(LIMIT),
    ],
};

/// A program in a storm takes ten times as long.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the script by sh with and without a storm; pages must have moved both ways.
fn stormy(script: &str) -> Result<Value> {
    stormy_command(&["sh", "-c", script])
}

fn stormy_command(argv: &[&str]) -> Result<Value> {
    let report = same_in_a_storm(&[], argv, "")?;
    outln!("{report}")?;
    ensure!(number(&report, "/over/moved")? > 0, "Nothing moved over");
    let back = number(&report, "/back/moved")? + number(&report, "/by_fault")?;
    ensure!(back > 0, "Nothing moved back");
    Ok(report)
}

fn python_computes_the_same() -> CaseResult {
    let python = installed("python3")?;
    let program = "
import hashlib, random
rng = random.Random(1)
words = [''.join(rng.choices('abcdefgh', k=6)) for _ in range(20000)]
count = {}
for word in words:
    count[word] = count.get(word, 0) + 1
for _ in range(5):
    ring = [[] for _ in range(1000)]
    for i, part in enumerate(ring):
        part.append(ring[i - 1])
print(hashlib.sha256(''.join(sorted(count)).encode()).hexdigest())
print(3 ** 20000 % 1000000007, sum(i * i for i in range(200000)))
";
    let python = python.to_str().context("A path that is no text")?;
    stormy_command(&[python, "-c", program]).map(drop)
}

fn perl_computes_the_same() -> CaseResult {
    installed("perl")?;
    stormy(
        "perl -e 'my $x = 1; my %h; for (1..60000) { $x = ($x * 48271) % 2147483647; \
         $h{$x % 5000} .= chr(97 + $x % 26) } my $s = join(q(,), map { $h{$_} } sort keys %h); \
         my $n = () = $s =~ /a[b-m]+z/g; print length($s), q( ), $n, qq(\\n), substr($s, 5000, 99)'",
    )
    .map(drop)
}

/// The start of a large program file that every machine has.
const SOME_MB: &str = "cat /usr/bin/* 2>/dev/null | head -c";

fn gzip_and_sha256sum_agree() -> CaseResult {
    installed("gzip")?;
    stormy(&format!(
        "{SOME_MB} 4000000 | gzip -n -6 | tee /tmp/packed | sha256sum; gzip -dc /tmp/packed | sha256sum"
    ))
    .map(drop)
}

fn xz_compresses_to_the_same_bytes() -> CaseResult {
    installed("xz")?;
    stormy(&format!("{SOME_MB} 1000000 | xz -T1 -2 | sha256sum")).map(drop)
}

fn sqlite_answers_the_same() -> CaseResult {
    installed("sqlite3")?;
    stormy(
        "sqlite3 :memory: 'create table t(a integer, b text); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000) \
         insert into t select i * 7919 % 30011, hex(i * i) from n; create index x on t(b); \
         select count(*), sum(a), max(b) from t where b > 3; \
         select a, b from t order by b desc limit 5; \
         select length(group_concat(b)) from (select b from t order by a);'",
    )
    .map(drop)
}

fn gcc_compiles_to_the_same_program() -> CaseResult {
    installed("gcc")?;
    let source = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
        static int order(const void *a, const void *b) { return *(int *)a - *(int *)b; }\n\
        int main(void) { static int v[9999]; for (int i = 0; i < 9999; i++) v[i] = i * 37 % 9999;\n\
        qsort(v, 9999, sizeof *v, order); printf(\"%d %d\\n\", v[1], v[9998]); return 0; }\n";
    std::fs::write("/tmp/program.c", source).context("Writing the source")?;
    let report =
        stormy("cd /tmp && gcc -O2 -Wall -o program program.c && sha256sum program && ./program")?;
    ensure!(
        number(&report, "/processes")? > 1,
        "The compiler's children were not in the storm: {report}"
    );
    Ok(())
}

fn the_end_of_the_program_is_the_storms() -> CaseResult {
    // Output, errors and end are compared there.
    same_in_a_storm(&[], &["sh", "-c", "cat; echo error >&2; exit 7"], "input")?;
    same_in_a_storm(&[], &["sh", "-c", "kill -ABRT $$"], "")?;
    let status = |argv: &[&str]| Ok::<_, anyhow::Error>(run(argv, "")?.status.code());
    ensure!(
        status(&["coaxctl", "storm", "--", "no-such-program"])? == Some(127),
        "Missing"
    );
    ensure!(
        status(&["coaxctl", "storm", "--", "/etc"])? == Some(126),
        "A folder"
    );
    let no_device = ["coaxctl", "--device", "/dev/null", "storm", "--", "true"];
    ensure!(status(&no_device)? == Some(125), "No device");
    // The program is told, ends as it likes, and is waited for.
    let script =
        "coax storm -- sh -c 'trap \"exit 9\" TERM; : > /tmp/ready; while :; do :; done' & \
        while [ ! -e /tmp/ready ]; do :; done; kill -TERM $!; wait $!";
    let output = run(&["sh", "-c", script], "")?;
    ensure!(output.status.code() == Some(9), "{output:?}");
    Ok(())
}

fn rate_and_duration_are_kept() -> CaseResult {
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; echo $i";
    let options = ["--rate", "20", "--duration", "1", "--seed", "5"];
    let report = same_in_a_storm(&options, &["sh", "-c", script], "")?;
    let pulls = number(&report, "/over/pulls")? + number(&report, "/back/pulls")?;
    ensure!((1..=21).contains(&pulls), "{pulls} pulls: {report}");
    ensure!(number(&report, "/seed")? == 5, "{report}");
    Ok(())
}

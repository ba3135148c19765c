// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What runs in the storm: stock programs that know nothing of the device, and tell by what they print
//! whether they computed the right thing.
//!
//! A workload is a script with lists of arguments, its parts. A part takes a second or two of a
//! processor of this machine, and so up to a minute under TCG, and several in a storm.
//!
//! Not in the lists is what gives another result just because everything is slower, or is not meant to
//! run here. Of Python's modules:
//!
//! - `test_threading`, `test_thread`, `test_queue`, `test_subprocess`, `test_signal`, `test_poll`,
//!   `test_asyncio`, `test_concurrent_futures`, `test_multiprocessing_*`: time-outs, of waits and of
//!   whole tests;
//! - `test_time`, `test_timeit`: they measure time;
//! - `test_socket` and its kind, `test_ssl`, `test_urllib*`: the network;
//! - `test_ctypes`: libffi writes machine code, which TCG does not see move to coherent memory;
//! - `test_sqlite3`: Debian leaves it out of its package;
//! - `test_lzma`, `test_zipfile`, `test_weakref`, `test_statistics`: minutes under TCG each, for what
//!   the others do as well.
//!
//! Of SQLite's files:
//!
//! - `delete`, `pager1`, `wal2`, `attach`: they want another user than root;
//! - `bigsort`, `sort2`, `fuzz`, `corrupt`, `trans`: minutes under TCG each;
//! - `malloc*`, `*crash*`, `*fault*`: thousands of runs each, or of a build with other options;
//! - `busy*`, `walslow`, `speed*`: they wait, or measure time.

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// File name of its script in `scripts`.
    pub script: &'static str,
    /// Its parts, each a name and the script's arguments, separated by blanks. They take turns.
    pub parts: &'static [(&'static str, &'static str)],
}

impl Workload {
    /// The full name of a part.
    pub fn part_name(&self, part: &str) -> String {
        format!("{} {part}", self.name)
    }
}

/// All, in the order of their turns.
pub const ALL: [Workload; 4] = [
    Workload {
        name: "python",
        script: "python.sh",
        parts: PYTHON,
    },
    Workload {
        name: "sqlite",
        script: "sqlite.sh",
        parts: SQLITE,
    },
    Workload {
        name: "gcc",
        script: "compile.sh",
        parts: GCC,
    },
    Workload {
        name: "sort",
        script: "sort.sh",
        parts: &[("500 MB", DATA)],
    },
];

/// The scripts, and what they call, by their names.
pub const SCRIPTS: [(&str, &str); 5] = [
    ("python.sh", include_str!("scripts/python.sh")),
    ("outcomes.py", include_str!("scripts/outcomes.py")),
    ("sqlite.sh", include_str!("scripts/sqlite.sh")),
    ("compile.sh", include_str!("scripts/compile.sh")),
    ("sort.sh", include_str!("scripts/sort.sh")),
];

/// The file to sort, in the guest.
pub const DATA: &str = "/tmp/soak/data";
/// Its length.
pub const DATA_BYTES: u64 = 500_000_000;

const PYTHON: &[(&str, &str)] = &[
    (
        "dict and list",
        "test_dict test_list test_tuple test_slice test_ordered_dict",
    ),
    (
        "processes",
        "test_fork1 test_wait4 test_popen test_posix test_fcntl",
    ),
    (
        "bytes",
        "test_mmap test_memoryview test_memoryio test_bytes test_struct",
    ),
    (
        "text",
        "test_re test_string test_format test_csv test_base64 test_binascii \
         test_configparser",
    ),
    ("garbage", "test_gc test_generators test_copy"),
    (
        "int and float",
        "test_int test_float test_complex test_fractions",
    ),
    (
        "files",
        "test_os test_tempfile test_shutil test_pathlib test_glob",
    ),
    ("queues", "test_deque test_array test_heapq test_bisect"),
    (
        "language",
        "test_descr test_class test_with test_enum test_grammar test_scope \
         test_dis",
    ),
    ("compression", "test_zlib test_gzip test_hashlib"),
    ("json", "test_json"),
    ("set", "test_set"),
    ("unicode", "test_unicode test_unicodedata"),
    ("long", "test_long"),
    ("math", "test_math test_random"),
    ("exceptions", "test_exceptions test_functools"),
    ("iterators", "test_itertools test_collections test_range"),
    ("bz2", "test_bz2"),
    ("pickle", "test_pickle"),
];

const SQLITE: &[(&str, &str)] = &[
    (
        "search",
        "fts3aa fts3ab fts3ac fts3ad fts4aa fts3matchinfo fts3prefix fts4content fts4docid \
         spellfix unionvtab closure01",
    ),
    (
        "queries",
        "select1 select2 select3 select7 selectA join where in subquery expr like like2 limit \
         between orderby1 distinct minmax with1",
    ),
    (
        "changes",
        "insert update conflict trigger1 upsert1 autoinc rowid intpkey unique without_rowid1 \
         fkey1 fkey2 savepoint alter vacuum view index hook",
    ),
    (
        "functions",
        "func date printf cast types json101 window1 quote collate1 randexpr1",
    ),
    (
        "storage",
        "wal memdb btree01 incrblob blob tableapi analyze indexedby",
    ),
];

const GCC: &[(&str, &str)] = &[
    ("util", "hash util pcache1 date"),
    ("lemon", "lemon"),
    ("vdbe", "vdbe vdbeaux vdbemem"),
    ("btree", "btree pager wal"),
    ("select", "select where expr"),
    ("build", "build insert update json"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_there_and_every_part_has_a_name_of_its_own() {
        for workload in &ALL {
            assert!(SCRIPTS.iter().any(|(name, _)| *name == workload.script));
            let mut names: Vec<_> = workload.parts.iter().map(|(name, _)| *name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert!(count > 0 && names.len() == count, "{}", workload.name);
        }
    }

    #[test]
    fn nothing_is_in_two_parts_of_a_workload() {
        for workload in &ALL {
            let mut words: Vec<_> = workload
                .parts
                .iter()
                .flat_map(|(_, words)| words.split(' '))
                .collect();
            let count = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count, "{}", workload.name);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What runs in the storm: stock programs that know nothing of the device, and tell by what they print
//! whether they computed the right thing.
//!
//! A workload is a script with lists of arguments, its parts. A part takes a second of a processor, or less, and so up to half a
//! minute under TCG, and several in a storm on a kernel with checks.
//!
//! Not in the lists is what gives another result just because everything is slower, or is not meant to
//! run here. Of Python's modules:
//!
//! - `test_threading`, `test_thread`, `test_queue`, `test_subprocess`, `test_signal`, `test_poll`,
//!   `test_fork1`, `test_wait3`, `test_wait4`, `test_asyncio`, `test_concurrent_futures`,
//!   `test_multiprocessing_*`, and in `test_re` `test_regression_gh94675`: they give up after some time;
//! - `test_time`, `test_timeit`, and of modules that are in the lists what `-i` leaves out:
//!   `test_search_anchor_at_beginning`, `test_denial_of_service_*`, `test_utime_current*`: they measure
//!   time;
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
//! - `like`, `busy*`, `walslow`, `speed*`: they measure time, or wait.

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// File name of its script in `scripts`.
    pub script: &'static str,
    /// Its parts, each a name and the script's arguments, separated by blanks. They run in this order.
    pub parts: &'static [(&'static str, &'static str)],
}

impl Workload {
    /// The full name of a part.
    pub fn part_name(&self, part: &str) -> String {
        format!("{} {part}", self.name)
    }
}

/// All, in the order in which they begin.
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
    ("list", "test_list test_tuple test_slice"),
    ("dict", "test_dict test_ordered_dict test_copy"),
    (
        "buffers",
        "test_mmap test_memoryview test_memoryio test_struct",
    ),
    ("processes", "test_popen test_fcntl test_posix"),
    (
        "re",
        "test_re test_string test_format -i test_search_anchor_at_beginning \
         -i test_regression_gh94675",
    ),
    ("garbage", "test_gc test_generators"),
    (
        "float",
        "test_float test_complex test_fractions test_int -i *denial_of_service*",
    ),
    ("files", "test_tempfile test_shutil test_glob"),
    ("queues", "test_deque test_heapq test_bisect"),
    ("compression", "test_zlib test_gzip"),
    ("classes", "test_descr test_class test_with test_enum"),
    ("unicode", "test_unicode test_unicodedata"),
    ("hash", "test_hashlib"),
    (
        "language",
        "test_grammar test_scope test_dis test_functools",
    ),
    (
        "text",
        "test_csv test_base64 test_binascii test_configparser",
    ),
    ("paths", "test_pathlib"),
    ("bytes", "test_bytes"),
    ("array", "test_array test_range test_collections"),
    ("json", "test_json"),
    ("set", "test_set"),
    ("long", "test_long"),
    ("math", "test_math test_random"),
    ("exceptions", "test_exceptions"),
    ("os", "test_os -i test_utime_current*"),
    ("iterators", "test_itertools"),
    ("bz2", "test_bz2"),
    ("pickle", "test_pickle"),
];

const SQLITE: &[(&str, &str)] = &[
    ("select", "select1 select3 select7 selectA join"),
    ("search", "fts3aa fts3ab fts3ad fts3matchinfo fts3prefix"),
    ("insert", "insert conflict unique without_rowid1"),
    ("storage", "memdb incrblob blob tableapi"),
    ("where", "where in subquery between minmax"),
    ("keys", "fkey1 fkey2 autoinc rowid intpkey"),
    ("window", "window1 distinct orderby1 limit"),
    ("schema", "alter vacuum view index hook indexedby"),
    (
        "expressions",
        "expr like2 cast types quote collate1 json101",
    ),
    ("changes", "update trigger1 upsert1 savepoint analyze"),
    ("tokens", "fts3ac fts4aa fts4content fts4docid spellfix"),
    ("btree", "btree01 unionvtab closure01"),
    ("with", "with1 select2"),
    ("wal", "wal"),
    ("date", "date"),
    ("printf", "printf randexpr1"),
    ("func", "func"),
];

const GCC: &[(&str, &str)] = &[
    ("hash", "hash pcache1"),
    ("json", "json resolve"),
    ("util", "util malloc"),
    ("wal", "wal date"),
    ("insert", "insert update"),
    ("pager", "pager"),
    ("lemon", "lemon"),
    ("os", "os_unix main"),
    ("where", "where"),
    ("expr", "expr"),
    ("vdbe", "vdbe vdbeaux vdbemem"),
    ("select", "select build"),
    ("btree", "btree"),
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
            words.retain(|word| *word != "-i");
            let count = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count, "{}", workload.name);
        }
    }
}

# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Files of SQLite's own test suite: the outcome of each test in them, without times and amounts of memory.
for test in "$@"; do
    mkdir "$test" && cd "$test" || exit
    "$SQLITE_BUILD/testfixture" "$SQLITE_SOURCE/test/$test.test" > output 2>&1
    echo "$test.test: exit status $?"
    cat output >&2
    grep -E '\.\.\. (Ok|Omitted)$|^!|errors out of' output
    cd ..
done

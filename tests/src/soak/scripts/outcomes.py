# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Prints the outcome of each test in a JUnit report, without times and messages: `NAME OUTCOME`.
import sys
import xml.etree.ElementTree

count = 0
for case in xml.etree.ElementTree.parse(sys.argv[1]).iter("testcase"):
    outcomes = [child.tag for child in case if child.tag in ("error", "failure", "skipped")]
    print(case.get("name"), " ".join(outcomes) or case.get("result"))
    count += 1
print(count, "tests")

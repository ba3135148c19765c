# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Python's own test modules: the outcome of each test. Arguments are those of `python3 -m test`.
python3 -m test --junit-xml results.xml "$@" >&2
echo "exit status $?"
python3 "$SCRIPTS/outcomes.py" results.xml

# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Sorts a file in memory: the sum of what comes out.
LC_ALL=C sort --parallel=2 --buffer-size=800M -- "$1" | sha256sum

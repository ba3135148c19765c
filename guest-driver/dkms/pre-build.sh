#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run by DKMS before a build, in the folder with the source: what the kernel lacks is told in DKMS's log and
# to whoever looks on, and DKMS told to skip the kernel. A failure would leave the package of a kernel that
# is being installed, or this one, half configured.
#
#   pre-build.sh RELEASE KDIR
release=$1
kdir=$2
# As DKMS says that a kernel is not meant.
skipped=77

lacks=$(sh ./check-kernel.sh "$kdir" known 2>&1) && exit 0
text="coax: no module for Linux $release:
$lacks"
echo "$text"

# DKMS has what this writes in its log alone: whoever looks on sees what its own process writes.
log=$(readlink /proc/self/fd/2)
pid=$PPID
while [ -n "$pid" ] && [ "$pid" -gt 1 ] && [ "$(readlink "/proc/$pid/fd/2")" = "$log" ]; do
	pid=$(sed -n 's/^PPid:[[:blank:]]*//p' "/proc/$pid/status")
done
console=/proc/$pid/fd/2
# In a file DKMS's next words would be written over these, since its place there is its own.
if [ -p "$console" ] || [ -c "$console" ]; then
	printf '\n%s\n' "$text" >"$console"
fi
exit $skipped

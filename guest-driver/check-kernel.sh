#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Says what a kernel build tree lacks for coax.ko; exit status 1 if anything.
kdir=$1
bad=0
lack() { echo "coax: $kdir: $1" >&2; bad=1; }

[ -d "$kdir" ] || { echo "coax: $kdir: no such kernel build tree; give it as KDIR=" >&2; exit 1; }
[ -f "$kdir/.config" ] || { lack "not configured (no .config)"; exit 1; }
for option in MODULES RUST DEVICE_PRIVATE HMM_MIRROR MMU_NOTIFIER ZONE_DEVICE PCI VIRTIO DEBUG_FS; do
	grep -q "^CONFIG_$option=[ym]" "$kdir/.config" || lack "CONFIG_$option is not set"
done
[ -f "$kdir/Module.symvers" ] || lack "Module.symvers is missing: build the kernel first"
[ -f "$kdir/rust/libkernel.rmeta" ] || lack "rust/libkernel.rmeta is missing: build the kernel with CONFIG_RUST=y"
exit $bad

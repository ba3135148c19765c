#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Says what a kernel build tree lacks for coax.ko; exit status 1 if anything.
#
#   check-kernel.sh KDIR [known]
#
# A kernel newer than those that the driver is known to build against is told and tried, or, with `known`,
# refused. RUSTC and BINDGEN in the environment name other programs than those in PATH.
kdir=$1
newer=$2
oldest=7.2
newest=7.3
bad=0
tell() { echo "coax: $kdir: $1" >&2; }
lack() { tell "$1"; bad=1; }
# 7.2.13-something and 7.2 alike, as a number that can be compared.
number() {
	major=${1%%[!0-9]*}
	minor=${1#"$major"}
	minor=${minor#.}
	minor=${minor%%[!0-9]*}
	echo $((${major:-0} * 1000 + ${minor:-0}))
}

[ -d "$kdir" ] || { echo "coax: $kdir: no such kernel build tree; give it as KDIR=" >&2; exit 1; }
[ -f "$kdir/.config" ] || { lack "not configured (no .config)"; exit 1; }
if [ -f "$kdir/include/config/kernel.release" ]; then
	release=$(cat "$kdir/include/config/kernel.release")
	if [ "$(number "$release")" -lt "$(number $oldest)" ]; then
		lack "Linux $release is older than $oldest, the oldest that the driver builds against"
		# The rest follows from that.
		exit 1
	fi
	if [ "$(number "$release")" -gt "$(number $newest)" ]; then
		tell "Linux $release is newer than $newest, the newest that the driver is known to build against"
		[ "$newer" != known ] || bad=1
	fi
fi
for option in MODULES RUST DEVICE_PRIVATE HMM_MIRROR MMU_NOTIFIER ZONE_DEVICE PCI VIRTIO DEBUG_FS; do
	grep -q "^CONFIG_$option=[ym]" "$kdir/.config" || lack "CONFIG_$option is not set"
done
[ -f "$kdir/Module.symvers" ] || lack "Module.symvers is missing: build the kernel first"

# What rustc reads of the kernel's own crates, and is told of its processor. Where all is missing one name will do.
missing=
for file in rust/libkernel.rmeta rust/libcore.rmeta rust/libcompiler_builtins.rmeta rust/libffi.rmeta \
	rust/libbuild_error.rmeta rust/libbindings.rmeta rust/libuapi.rmeta rust/libpin_init.rmeta \
	rust/libzerocopy.rmeta rust/libmacros.so rust/libpin_init_internal.so rust/libzerocopy_derive.so \
	scripts/target.json include/generated/rustc_cfg; do
	[ -f "$kdir/$file" ] || missing="$missing $file"
done
if grep -q '^CONFIG_RUST=y' "$kdir/.config" && [ -n "$missing" ]; then
	if [ -d "$kdir/rust" ]; then
		lack "missing:$missing: build the kernel first, or make prepare modules_prepare in it"
	else
		lack "rust/libkernel.rmeta is missing, as is all metadata of the kernel's Rust crates: these are headers for modules in C, as Debian's. ./coax build kernel --kernel debian makes it for Debian's kernel for cloud machines, guest-driver/README.md says how for others"
	fi
fi

# The names of Rust's symbols and the format of the metadata depend on the very compiler.
wanted=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"$/\1/p' "$kdir/.config")
if [ -n "$wanted" ]; then
	# More than one word if it is run by way of another.
	if ! found=$(${RUSTC:-rustc} --version 2>/dev/null); then
		lack "${RUSTC:-rustc} cannot be run: install $wanted, which the kernel was built by, or give it as RUSTC="
	elif [ "$found" != "$wanted" ]; then
		lack "the kernel was built by $wanted, and ${RUSTC:-rustc} is $found: give the kernel's as RUSTC="
	fi
	${BINDGEN:-bindgen} --version >/dev/null 2>&1 ||
		lack "${BINDGEN:-bindgen} cannot be run: install bindgen, or give it as BINDGEN="
fi
exit $bad

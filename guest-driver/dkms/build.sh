#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Makes the Debian package coax-dkms of the driver's source; run by `make deb`.
#
#   build.sh OUTPUT     prints the package's file
#
# With dpkg-deb alone, so that it takes no packages for building packages. What DKMS wants of maintainers' scripts is
# what dh_dkms(1) writes. The same source makes the same file.
set -eu
umask 022
driver=$(cd "$(dirname "$0")/.." && pwd)
output=$1
from=$driver/dkms

# Version, maintainer and time are those of the changelog's newest entry.
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$from/changelog")
maintainer=$(sed -n 's/^ -- \(.*>\)  .*/\1/p;T;q' "$from/changelog")
SOURCE_DATE_EPOCH=$(date -d "$(sed -n 's/^ -- .*>  //p;T;q' "$from/changelog")" +%s)
export SOURCE_DATE_EPOCH

mkdir -p "$output"
root=$(mktemp -d "$output/deb.XXXXXX")
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
source=$root/usr/src/coax-$version
doc=$root/usr/share/doc/coax-dkms
mkdir -p "$source/abi/src" "$source/dkms" "$doc" "$root/DEBIAN"

fill() { sed "s/@VERSION@/$version/g; s/@MAINTAINER@/$maintainer/g; s/@SIZE@/${size:-}/g" "$from/$1"; }

cd "$driver"
cp Kbuild Makefile check-kernel.sh "$source"
cp -R src "$source"
# What src/coax_main.rs takes of the interfaces.
cp abi/src/uapi.rs abi/src/wire.rs "$source/abi/src"
cp dkms/pre-build.sh "$source/dkms"
fill dkms.conf >"$source/dkms.conf"
cp dkms/copyright "$doc"
gzip -9nc dkms/changelog >"$doc/changelog.gz"
gzip -9nc README.md >"$doc/README.md.gz"
find "$root/usr" -type d -exec chmod 755 {} +
find "$root/usr" -type f -exec chmod 644 {} +
chmod 755 "$source/dkms/pre-build.sh" "$source/check-kernel.sh"

# As Debian's policy counts: whole KiB of each file, and one for each folder.
size=$(find "$root/usr" -printf '%y %s\n' | awk '{ sum += $1 == "d" ? 1 : int(($2 + 1023) / 1024) } END { print sum }')
fill control >"$root/DEBIAN/control"
for script in postinst prerm; do
	fill $script >"$root/DEBIAN/$script"
	chmod 755 "$root/DEBIAN/$script"
done
(cd "$root" && find usr -type f -print | LC_ALL=C sort | xargs md5sum) >"$root/DEBIAN/md5sums"

package=$output/coax-dkms_${version}_all.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"

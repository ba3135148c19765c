#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Installs the library: install.sh LIBRARY [DESTDIR]. README.md says what the links are for.
set -eu

library=$1
top=${2:-}/usr/lib/coax
distribution=/usr/lib/$(cc -print-multiarch)

mkdir -p "$top"
install -s -m 644 "$library" "$top/libblas.so.3"
ln -sfn libblas.so.3 "$top/libcblas.so.3"
install -m 755 "$(dirname "$0")/coax-blas" "$top/coax-blas"
mkdir -p "${2:-}/usr/bin"
ln -sfn ../lib/coax/coax-blas "${2:-}/usr/bin/coax-blas"
for choice in openblas-pthread openblas-openmp openblas-serial blas; do
	mkdir -p "$top/cpu-blas/$choice"
	ln -sfn "$distribution/$choice/libblas.so.3" "$top/cpu-blas/$choice/libcoax-blas-cpu.so.3"
done

/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: kernel interfaces that kernel::bindings lacks, and our shims. */
#include "shim.h"

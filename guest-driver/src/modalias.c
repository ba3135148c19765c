// SPDX-License-Identifier: GPL-2.0
/* Has the module loaded when a device of its kind is found: Rust has no such table for this bus. */
#include <linux/mod_devicetable.h>
#include <linux/module.h>

/* VIRTIO_ID_COAX and VIRTIO_ID_BORROWED of abi/src/wire.rs. */
static const struct virtio_device_id coax_ids[] = {
	{ 63, VIRTIO_DEV_ANY_ID },
	{ 38, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, coax_ids);

// SPDX-License-Identifier: GPL-2.0
/* Virtio devices and their queues. */
#include "shim.h"

#include <linux/scatterlist.h>
#include <linux/slab.h>

int coax_virtio_find_vqs(struct virtio_device *vdev, unsigned int count, struct virtqueue **vqs,
			 const char *const *names, void (*callback)(struct virtqueue *vq))
{
	struct virtqueue_info *info;
	unsigned int i;
	int ret;

	info = kcalloc(count, sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		info[i].name = names[i];
		info[i].callback = callback;
	}
	ret = virtio_find_vqs(vdev, count, vqs, info, NULL);
	kfree(info);
	return ret;
}

void coax_virtio_del_vqs(struct virtio_device *vdev)
{
	vdev->config->del_vqs(vdev);
}

void coax_virtio_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

void coax_virtio_synchronize_cbs(struct virtio_device *vdev)
{
	virtio_synchronize_cbs(vdev);
}

bool coax_virtio_read_config(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len)
{
	/* A device without a configuration space. */
	if (!vdev->config->get)
		return false;
	/* All fields are 32 bits wide, and each is to be read by one access (VirtIO 1.3 §4.1.3.1). */
	for (; len >= 4; offset += 4, buf += 4, len -= 4)
		vdev->config->get(vdev, offset, buf, 4);
	return true;
}

bool coax_virtio_get_shm(struct virtio_device *vdev, u8 id, u64 *addr, u64 *len)
{
	struct virtio_shm_region region;

	if (!virtio_get_shm_region(vdev, &region, id))
		return false;
	*addr = region.addr;
	*len = region.len;
	return true;
}

u32 coax_virtio_type(struct virtio_device *vdev)
{
	return vdev->id.device;
}

bool coax_virtio_has_feature(struct virtio_device *vdev, u32 bit)
{
	/* Not virtio_has_feature(): that is a BUG for a bit that the driver has not listed. */
	return __virtio_test_bit(vdev, bit);
}

bool coax_virtio_needs_reset(struct virtio_device *vdev)
{
	u8 status = vdev->config->get_status(vdev);

	/* Without DRIVER_OK it was reset by somebody else. */
	return (status & VIRTIO_CONFIG_S_NEEDS_RESET) || !(status & VIRTIO_CONFIG_S_DRIVER_OK);
}

bool coax_virtio_is_gone(struct virtio_device *vdev)
{
	/* What a read of a function returns that is not there; a status has bits that are never set. */
	return vdev->config->get_status(vdev) == 0xff;
}

void *coax_virtio_get_drvdata(struct virtio_device *vdev)
{
	return READ_ONCE(vdev->priv);
}

void coax_virtio_set_drvdata(struct virtio_device *vdev, void *data)
{
	WRITE_ONCE(vdev->priv, data);
}

struct device *coax_virtio_parent(struct virtio_device *vdev)
{
	return vdev->dev.parent;
}

int coax_virtqueue_add(struct virtqueue *vq, void *out_buf, unsigned int out_len,
		       void *in_buf, unsigned int in_len, void *token)
{
	struct scatterlist out, in, *sgs[2];
	unsigned int num = 0, outs = 0, ins = 0;

	if (out_len) {
		sg_init_one(&out, out_buf, out_len);
		sgs[num++] = &out;
		outs++;
	}
	if (in_len) {
		sg_init_one(&in, in_buf, in_len);
		sgs[num++] = &in;
		ins++;
	}
	return virtqueue_add_sgs(vq, sgs, outs, ins, token, GFP_ATOMIC);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Character devices of a class of their own. Unlike a misc device's, their open() runs under no lock that
 * other drivers' devices wait for.
 */
#include "shim.h"

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/mutex.h>
#include <linux/slab.h>

/* Two for each of 64 devices. */
#define MINORS 128

struct coax_chardev {
	struct device dev;
	struct cdev cdev;
	umode_t mode;
	/* Guards data, which is NULL when the device is going. */
	struct mutex lock;
	void *data;
};

static dev_t first;
static DEFINE_IDA(minors);

static char *devnode(const struct device *dev, umode_t *mode)
{
	/* Without a mode only the path is asked for. */
	if (mode)
		*mode = container_of(dev, struct coax_chardev, dev)->mode;
	return NULL;
}

static const struct class class = {
	.name = "coax",
	.devnode = devnode,
};

int coax_chardev_init(void)
{
	int ret = alloc_chrdev_region(&first, 0, MINORS, "coax");

	if (ret)
		return ret;
	ret = class_register(&class);
	if (ret)
		unregister_chrdev_region(first, MINORS);
	return ret;
}

void coax_chardev_exit(void)
{
	class_unregister(&class);
	unregister_chrdev_region(first, MINORS);
}

/* The last reference, of a file too, is gone. */
static void release(struct device *dev)
{
	struct coax_chardev *chardev = container_of(dev, struct coax_chardev, dev);

	ida_free(&minors, MINOR(dev->devt) - MINOR(first));
	mutex_destroy(&chardev->lock);
	kfree(chardev);
}

struct coax_chardev *coax_chardev_add(const struct file_operations *fops, const char *name,
				      umode_t mode, void *data)
{
	struct coax_chardev *chardev = kzalloc(sizeof(*chardev), GFP_KERNEL);
	int ret;

	if (!chardev)
		return ERR_PTR(-ENOMEM);
	ret = ida_alloc_max(&minors, MINORS - 1, GFP_KERNEL);
	if (ret < 0) {
		kfree(chardev);
		return ERR_PTR(ret);
	}
	device_initialize(&chardev->dev);
	chardev->dev.class = &class;
	chardev->dev.devt = MKDEV(MAJOR(first), MINOR(first) + ret);
	chardev->dev.release = release;
	chardev->mode = mode;
	mutex_init(&chardev->lock);
	chardev->data = data;
	cdev_init(&chardev->cdev, fops);
	chardev->cdev.owner = fops->owner;
	ret = dev_set_name(&chardev->dev, "%s", name);
	if (!ret)
		ret = cdev_device_add(&chardev->cdev, &chardev->dev);
	if (ret) {
		/* A file that was opened meanwhile keeps it, without the data. */
		mutex_lock(&chardev->lock);
		chardev->data = NULL;
		mutex_unlock(&chardev->lock);
		put_device(&chardev->dev);
		return ERR_PTR(ret);
	}
	return chardev;
}

void coax_chardev_del(struct coax_chardev *chardev)
{
	mutex_lock(&chardev->lock);
	chardev->data = NULL;
	mutex_unlock(&chardev->lock);
	cdev_device_del(&chardev->cdev, &chardev->dev);
	put_device(&chardev->dev);
}

void *coax_chardev_lock(struct inode *inode)
{
	struct coax_chardev *chardev = container_of(inode->i_cdev, struct coax_chardev, cdev);

	mutex_lock(&chardev->lock);
	return chardev->data;
}

void coax_chardev_unlock(struct inode *inode)
{
	mutex_unlock(&container_of(inode->i_cdev, struct coax_chardev, cdev)->lock);
}

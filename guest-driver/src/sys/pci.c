// SPDX-License-Identifier: GPL-2.0
/* PCI functions without a driver, used by that of another function in the same slot. */
#include "shim.h"

#include <linux/device/bus.h>
#include <linux/pci.h>
#include <linux/slab.h>

/* A function in use. */
struct coax_pci_memory {
	struct list_head list;
	struct pci_dev *function;
	struct virtio_device *user;
};

static LIST_HEAD(memories);
static DEFINE_MUTEX(memories_lock);

static struct pci_dev *find_beside(struct device *dev, u16 vendor, u16 device, int bar)
{
	struct pci_dev *own, *found;
	unsigned int function;

	if (!dev_is_pci(dev))
		return NULL;
	own = to_pci_dev(dev);
	for (function = 0; function < 8; function++) {
		found = pci_get_slot(own->bus, PCI_DEVFN(PCI_SLOT(own->devfn), function));
		if (found && found->vendor == vendor && found->device == device &&
		    (pci_resource_flags(found, bar) & IORESOURCE_MEM))
			return found;
		pci_dev_put(found);
	}
	return NULL;
}

struct coax_pci_memory *coax_pci_memory_beside(struct virtio_device *vdev, u16 vendor, u16 device, int bar,
					       u64 *addr, u64 *len)
{
	struct pci_dev *function = find_beside(vdev->dev.parent, vendor, device, bar);
	struct coax_pci_memory *memory;
	int ret = -ENOMEM;

	if (!function)
		return NULL;
	memory = kzalloc(sizeof(*memory), GFP_KERNEL);
	if (!memory)
		goto put;
	/* Nobody else has enabled it. */
	ret = pci_enable_device_mem(function);
	if (ret)
		goto free;
	memory->function = function;
	memory->user = vdev;
	*addr = pci_resource_start(function, bar);
	*len = pci_resource_len(function, bar);
	mutex_lock(&memories_lock);
	list_add(&memory->list, &memories);
	mutex_unlock(&memories_lock);
	return memory;
free:
	kfree(memory);
put:
	pci_dev_put(function);
	return ERR_PTR(ret);
}

void coax_pci_memory_put(struct coax_pci_memory *memory)
{
	mutex_lock(&memories_lock);
	list_del(&memory->list);
	mutex_unlock(&memories_lock);
	pci_disable_device(memory->function);
	pci_dev_put(memory->function);
	kfree(memory);
}

/* The device that uses a function, with a reference; NULL if there is none. */
static struct device *user_of(struct device *function)
{
	struct coax_pci_memory *memory;
	struct device *user = NULL;

	mutex_lock(&memories_lock);
	list_for_each_entry(memory, &memories, list) {
		if (&memory->function->dev == function) {
			user = get_device(&memory->user->dev);
			break;
		}
	}
	mutex_unlock(&memories_lock);
	return user;
}

/*
 * Before a function goes its user loses its driver. The slot's functions may go in any order, and its addresses
 * are given to others when it has gone.
 */
static int changes(struct notifier_block *nb, unsigned long action, void *data)
{
	struct device *user;

	if (action != BUS_NOTIFY_DEL_DEVICE)
		return NOTIFY_DONE;
	user = user_of(data);
	if (user) {
		device_release_driver(user);
		put_device(user);
	}
	return NOTIFY_DONE;
}

static struct notifier_block watch = { .notifier_call = changes };

int coax_pci_watch(void)
{
	return bus_register_notifier(&pci_bus_type, &watch);
}

void coax_pci_unwatch(void)
{
	bus_unregister_notifier(&pci_bus_type, &watch);
}

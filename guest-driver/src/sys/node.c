// SPDX-License-Identifier: GPL-2.0
/* Memory nodes. */
#include "shim.h"

#include <linux/acpi.h>
#include <linux/cpuset.h>
#include <linux/gfp.h>
#include <linux/mempolicy.h>
#include <linux/nodemask.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/unaligned.h>
#include <linux/vmstat.h>

unsigned int coax_online_nodes(void)
{
	return num_online_nodes();
}

#ifdef CONFIG_ACPI_NUMA
/* ACPI 6.5 §5.2.16.6: a device handle of this type has segment, bus, and device with function. */
#define PCI_DEVICE_HANDLE 1

static bool is_initiator(const struct acpi_srat_generic_affinity *affinity, struct pci_dev *function)
{
	const u8 *handle = affinity->device_handle;

	return (affinity->flags & ACPI_SRAT_GENERIC_AFFINITY_ENABLED) &&
	       affinity->device_handle_type == PCI_DEVICE_HANDLE &&
	       get_unaligned_le16(handle) == pci_domain_nr(function->bus) &&
	       handle[2] == function->bus->number && handle[3] == function->devfn;
}

/* The node that firmware says a function is an initiator of, whose memory may then be that node's. */
static int initiator_node(struct pci_dev *function)
{
	const struct acpi_subtable_header *entry;
	struct acpi_table_header *table;
	int node = NUMA_NO_NODE;
	u32 at;

	if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_SRAT, 0, &table)))
		return NUMA_NO_NODE;
	for (at = sizeof(struct acpi_table_srat); at + sizeof(*entry) <= table->length; at += entry->length) {
		const struct acpi_srat_generic_affinity *affinity;

		entry = (void *)table + at;
		affinity = (void *)entry;
		if (entry->length < sizeof(*entry) || entry->length > table->length - at)
			break;
		if (entry->type == ACPI_SRAT_TYPE_GENERIC_AFFINITY && entry->length >= sizeof(*affinity) &&
		    is_initiator(affinity, function)) {
			node = pxm_to_node(affinity->proximity_domain);
			break;
		}
	}
	acpi_put_table(table);
	return node;
}
#else
static int initiator_node(struct pci_dev *function)
{
	return NUMA_NO_NODE;
}
#endif

int coax_virtio_node(struct virtio_device *vdev)
{
	struct device *dev = vdev->dev.parent;
	int node = NUMA_NO_NODE;

	if (dev_is_pci(dev))
		node = initiator_node(to_pci_dev(dev));
	/* That of the host bridge, which is also that of CPUs and other devices. */
	return node != NUMA_NO_NODE ? node : dev_to_node(dev);
}

bool coax_node_is_vacant(int nid)
{
	return node_possible(nid) && !node_state(nid, N_CPU) && !node_state(nid, N_MEMORY);
}

u64 coax_node_free_movable_pages(int nid)
{
	struct zone *zone = &NODE_DATA(nid)->node_zones[ZONE_MOVABLE];
	u64 pages;
	int cpu;

	if (!node_state(nid, N_MEMORY))
		return 0;
	pages = zone_page_state_snapshot(zone, NR_FREE_PAGES);
	/* What CPUs keep at hand is free as well. */
	for_each_online_cpu(cpu)
		pages += READ_ONCE(per_cpu_ptr(zone->per_cpu_pageset, cpu)->count);
	return pages;
}

bool coax_node_has_room(int nid)
{
	struct zone *zone = &NODE_DATA(nid)->node_zones[ZONE_MOVABLE];

	/* As an allocation without reclaim sees it. */
	return node_state(nid, N_MEMORY) &&
	       zone_page_state(zone, NR_FREE_PAGES) > low_wmark_pages(zone);
}

struct page *coax_alloc_folio_node(int nid, unsigned int order)
{
	/* What does not fit stays where it is, which is not worth reclaim. */
	gfp_t gfp = order ? GFP_TRANSHUGE_LIGHT : GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM;
	struct folio *folio;

	if (!node_state(nid, N_MEMORY))
		return NULL;
	folio = __folio_alloc(gfp | __GFP_THISNODE | __GFP_NOWARN, order, nid, NULL);
	return folio ? folio_page(folio, 0) : NULL;
}

bool coax_vma_may_use_node(struct vm_area_struct *vma, int nid)
{
#ifdef CONFIG_NUMA
	struct mempolicy *policy = vma_policy(vma);

	return !policy || policy->mode != MPOL_BIND || node_isset(nid, policy->nodes);
#else
	return true;
#endif
}

bool coax_current_may_use_node(int nid)
{
	return node_isset(nid, cpuset_current_mems_allowed);
}

bool coax_pfn_is_movable(unsigned long pfn)
{
	return page_zonenum(pfn_to_page(pfn)) == ZONE_MOVABLE;
}

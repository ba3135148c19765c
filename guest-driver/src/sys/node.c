// SPDX-License-Identifier: GPL-2.0
/* Memory nodes. */
#include "shim.h"

#include <linux/cpuset.h>
#include <linux/gfp.h>
#include <linux/mempolicy.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/vmstat.h>

unsigned int coax_online_nodes(void)
{
	return num_online_nodes();
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

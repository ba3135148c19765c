// SPDX-License-Identifier: GPL-2.0
/* Struct pages of device memory, the physical addresses they take, and what is behind them. */
#include "shim.h"

#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memcontrol.h>
#include <linux/vmstat.h>

struct dev_pagemap *coax_folio_pgmap(struct folio *folio)
{
	return folio->pgmap;
}

void coax_device_folio_init(struct page *page, struct dev_pagemap *pgmap, unsigned int order)
{
	unsigned int i;

	/*
	 * zone_device_page_init() clears the eight lowest flags, the page allocator all when a page is freed:
	 * active, unevictable, swapbacked and the others of the last user, and those that the second page of
	 * a large folio has in their places. Reserved is a device page's own, and poison stays.
	 */
	for (i = 0; i < 1U << order; i++) {
		page[i].flags.f &= ~(PAGE_FLAGS_CHECK_AT_PREP & ~(1UL << PG_reserved));
		page_cpupid_reset_last(page + i);
		page[i].zone_device_data = NULL;
		page[i].private = 0;
	}
	/*
	 * Not zone_device_folio_init(): a free page may still say that it is the tail of a larger
	 * folio, so that page_folio() would lead to another page.
	 */
	zone_device_page_init(page, pgmap, order);
	if (order)
		folio_set_large_rmappable(page_folio(page));
}

void coax_device_folio_freed(struct folio *folio)
{
	long nr = folio_nr_pages(folio);

	/*
	 * munlock() passes device pages by, so that the last user may leave one locked; the page allocator
	 * settles the account, for which a device page never gets there.
	 */
	if (!folio_test_clear_mlocked(folio))
		return;
	zone_stat_mod_folio(folio, NR_MLOCK, -nr);
	count_vm_events(UNEVICTABLE_PGCLEARED, nr);
}

struct dev_pagemap *coax_page_pgmap(struct page *page)
{
	return page_pgmap(page);
}

struct resource *coax_request_free_region(unsigned long size, const char *name)
{
	return request_free_mem_region(&iomem_resource, size, name);
}

struct resource *coax_request_region(u64 start, u64 len, const char *name)
{
	return request_mem_region(start, len, name);
}

void coax_release_region(struct resource *res)
{
	release_mem_region(res->start, resource_size(res));
}

void *coax_map_bar(u64 addr, u64 len)
{
	return memremap(addr, len, MEMREMAP_WB);
}

void coax_unmap_bar(void *mapped)
{
	memunmap(mapped);
}

void *coax_phys_to_virt(u64 addr)
{
	return phys_to_virt(addr);
}

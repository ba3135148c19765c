// SPDX-License-Identifier: GPL-2.0
/* Pages and folios. */
#include "shim.h"

#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>

struct page *coax_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

unsigned long coax_page_to_pfn(struct page *page)
{
	return page_to_pfn(page);
}

unsigned long coax_folio_pfn(struct folio *folio)
{
	return folio_pfn(folio);
}

unsigned long coax_folio_nr_pages(struct folio *folio)
{
	return folio_nr_pages(folio);
}

bool coax_page_is_charged(struct page *page)
{
	return mem_cgroup_disabled() || folio_memcg_charged(page_folio(page));
}

bool coax_page_is_device_private(struct page *page)
{
	return is_device_private_page(page);
}

bool coax_page_is_device_coherent(struct page *page)
{
	return is_device_coherent_page(page);
}

bool coax_pfn_is_zero(unsigned long pfn)
{
	return is_zero_pfn(pfn);
}

struct page *coax_alloc_folio_vma(struct vm_area_struct *vma, unsigned long addr, unsigned int order)
{
	/* Small folios do as well: a large one is not worth direct reclaim. */
	gfp_t gfp = order ? GFP_TRANSHUGE_LIGHT | __GFP_KSWAPD_RECLAIM : GFP_HIGHUSER_MOVABLE;
	struct folio *folio = vma_alloc_folio(gfp, order, vma, addr);

	return folio ? folio_page(folio, 0) : NULL;
}

struct page *coax_alloc_folio(unsigned int order)
{
	struct folio *folio = folio_alloc(order ? GFP_TRANSHUGE : GFP_HIGHUSER_MOVABLE, order);

	return folio ? folio_page(folio, 0) : NULL;
}

void coax_lock_page(struct page *page)
{
	lock_page(page);
}

void coax_unlock_put_page(struct page *page)
{
	unlock_page(page);
	put_page(page);
}

bool coax_page_is_anon(struct page *page)
{
	return folio_test_anon(page_folio(page));
}

bool coax_page_is_plain_anon(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_anon(folio) && !folio_test_ksm(folio);
}

bool coax_page_is_under_writeback(struct page *page)
{
	return folio_test_writeback(page_folio(page));
}

bool coax_page_is_zero(struct page *page)
{
	/* The huge zero folio is not exported; it has no mapping, as nothing else user-visible. */
	return is_zero_pfn(page_to_pfn(page)) || !page_folio(page)->mapping;
}

void coax_mark_written(struct page *page)
{
	struct folio *folio = page_folio(page);

	/*
	 * The device writes without setting the page table's dirty bit. Without either bit a page that
	 * was freed lazily (MADV_FREE) is dropped, and one whose copy is in swap is not written again.
	 * Other file systems than shmem write-protect clean pages and so have seen a write fault already.
	 */
	if (folio_test_anon(folio) || (folio->mapping && shmem_mapping(folio->mapping)))
		folio_mark_dirty(folio);
}

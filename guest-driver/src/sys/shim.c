// SPDX-License-Identifier: GPL-2.0
/* Inline functions and macros of the kernel as functions that Rust can call. */
#include "shim.h"

#include <linux/capability.h>
#include <linux/highmem.h>
#include <linux/hugetlb.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memcontrol.h>
#include <linux/notifier.h>
#include <linux/pid.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/scatterlist.h>
#include <linux/shmem_fs.h>
#include <linux/timekeeping.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>

unsigned long coax_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

int coax_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	unsigned long f;

	if (!spin_trylock_irqsave(lock, f))
		return 0;
	*flags = f;
	return 1;
}

void coax_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

void coax_init_completion(struct completion *done)
{
	init_completion(done);
}

void coax_reinit_completion(struct completion *done)
{
	reinit_completion(done);
}

unsigned long coax_wait_for_completion_ms(struct completion *done, unsigned int ms)
{
	return wait_for_completion_timeout(done, msecs_to_jiffies(ms));
}

long coax_wait_for_completion_killable_ms(struct completion *done, unsigned int ms)
{
	return wait_for_completion_killable_timeout(done, msecs_to_jiffies(ms));
}

struct workqueue_struct *coax_alloc_workqueue(void)
{
	return alloc_workqueue("coax", WQ_PERCPU | WQ_HIGHPRI | WQ_CPU_INTENSIVE, 0);
}

struct workqueue_struct *coax_alloc_unbound_workqueue(void)
{
	return alloc_workqueue("coax_unbound", WQ_UNBOUND, WQ_MAX_ACTIVE);
}

void coax_flush_workqueue(struct workqueue_struct *wq)
{
	flush_workqueue(wq);
}

bool coax_queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	return queue_work(wq, work);
}

bool coax_queue_work_on(unsigned int cpu, struct workqueue_struct *wq, struct work_struct *work)
{
	return queue_work_on(cpu, wq, work);
}

bool coax_queue_work_anywhere(struct work_struct *work)
{
	return queue_work(system_dfl_wq, work);
}

unsigned int coax_this_cpu(void)
{
	return raw_smp_processor_id();
}

unsigned int coax_online_cpus(void)
{
	return num_online_cpus();
}

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

void coax_virtio_read_config(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len)
{
	/* All fields are 32 bits wide, and each is to be read by one access (VirtIO 1.3 §4.1.3.1). */
	for (; len >= 4; offset += 4, buf += 4, len -= 4)
		vdev->config->get(vdev, offset, buf, 4);
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

int coax_virtio_node(struct virtio_device *vdev)
{
	return dev_to_node(vdev->dev.parent);
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

struct dev_pagemap *coax_folio_pgmap(struct folio *folio)
{
	return folio->pgmap;
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

int coax_notifier_from_errno(int err)
{
	return notifier_from_errno(err);
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

struct page *coax_make_exclusive(struct mm_struct *mm, unsigned long addr, void *owner)
{
	struct folio *folio;

	/* The folio comes back locked and with a reference: LockedFolio's. */
	return make_device_exclusive(mm, addr, owner, &folio);
}

int coax_mmap_read_lock_killable(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}

int coax_fault_in(struct vm_area_struct *vma, unsigned long addr, bool write, bool wait, bool *unlocked)
{
	unsigned int flags = FAULT_FLAG_REMOTE | FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE |
			     FAULT_FLAG_INTERRUPTIBLE;
	vm_fault_t ret;

	*unlocked = false;
	if (vma->vm_flags & (VM_IO | VM_PFNMAP) || !(vma->vm_flags & (write ? VM_WRITE : VM_READ)))
		return -EFAULT;
	if (write)
		flags |= FAULT_FLAG_WRITE;
	if (!wait)
		flags |= FAULT_FLAG_RETRY_NOWAIT;
	ret = handle_mm_fault(vma, addr, flags, NULL);
	if (ret & VM_FAULT_COMPLETED) {
		*unlocked = true;
		return 0;
	}
	if (ret & VM_FAULT_RETRY) {
		/* Without waiting the lock stays held (__folio_lock_or_retry(), handle_userfault()). */
		*unlocked = wait;
		return -EAGAIN;
	}
	return ret & VM_FAULT_ERROR ? vm_fault_to_errno(ret, 0) : 0;
}

bool coax_vma_is_watched(struct vm_area_struct *vma)
{
	return userfaultfd_armed(vma);
}

unsigned long coax_vma_next_mapped(struct vm_area_struct *vma, unsigned long addr, unsigned long end)
{
	while (addr < end) {
		pgd_t *pgd = pgd_offset(vma->vm_mm, addr);
		p4d_t *p4d;
		pud_t *pud;
		pmd_t pmd;

		if (pgd_none(pgdp_get(pgd))) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(p4dp_get(p4d))) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		if (pud_none(pudp_get(pud))) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		if (!pud_present(pudp_get(pud)) || pud_leaf(pudp_get(pud)))
			return addr;
		pmd = pmdp_get_lockless(pmd_offset(pud, addr));
		if (!pmd_none(pmd))
			return addr;
		addr = pmd_addr_end(addr, end);
	}
	return end;
}

void *coax_charge_to(struct mm_struct *mm)
{
	return set_active_memcg(get_mem_cgroup_from_mm(mm));
}

void coax_charge_end(void *before)
{
	mem_cgroup_put(set_active_memcg(before));
}

bool coax_notifier_is_exclusive(const struct mmu_notifier_range *range, void *owner)
{
	return range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == owner;
}

bool coax_notifier_is_unmap(const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_UNMAP;
}

bool coax_vma_has_anon(struct vm_area_struct *vma)
{
	return !(vma->vm_flags & (VM_SHARED | VM_SPECIAL)) && !is_vm_hugetlb_page(vma);
}

u64 coax_total_pages(void)
{
	return totalram_pages();
}

bool coax_notifier_blockable(const struct mmu_notifier_range *range)
{
	return mmu_notifier_range_blockable(range);
}

void coax_notifier_set_seq(struct mmu_interval_notifier *sub, unsigned long seq)
{
	mmu_interval_set_seq(sub, seq);
}

bool coax_notifier_retry(struct mmu_interval_notifier *sub, unsigned long seq)
{
	return mmu_interval_read_retry(sub, seq);
}

unsigned long coax_notifier_start(const struct mmu_notifier_range *range)
{
	return range->start;
}

unsigned long coax_notifier_end(const struct mmu_notifier_range *range)
{
	return range->end;
}

struct mm_struct *coax_current_mm(void)
{
	return current->mm;
}

struct mm_struct *coax_get_mm_of_pid(int nr)
{
	struct pid *pid = find_get_pid(nr);
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	struct mm_struct *mm = NULL;

	put_pid(pid);
	if (task) {
		mm = get_task_mm(task);
		put_task_struct(task);
	}
	return mm;
}

unsigned long coax_task_size(struct mm_struct *mm)
{
	return mm->task_size;
}

bool coax_vma_is_anonymous(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma);
}

bool coax_vma_has_page_table(struct vm_area_struct *vma, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(vma->vm_mm, addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t pmd;

	if (!pgd_present(pgdp_get(pgd)))
		return false;
	p4d = p4d_offset(pgd, addr);
	if (!p4d_present(p4dp_get(p4d)))
		return false;
	pud = pud_offset(p4d, addr);
	if (!pud_present(pudp_get(pud)) || pud_leaf(pudp_get(pud)))
		return false;
	pmd = pmdp_get_lockless(pmd_offset(pud, addr));
	return pmd_present(pmd) && !pmd_leaf(pmd);
}

struct vm_area_struct *coax_find_vma(struct mm_struct *mm, unsigned long addr)
{
	return find_vma(mm, addr);
}

bool coax_mm_is_current(struct mm_struct *mm)
{
	return current->mm == mm;
}

bool coax_admin(void)
{
	return capable(CAP_SYS_ADMIN);
}

bool coax_may_exceed(void)
{
	return capable(CAP_SYS_RESOURCE);
}

bool coax_may_trace(void)
{
	return capable(CAP_SYS_PTRACE);
}

bool coax_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void coax_thread_takes_signals(void)
{
	allow_kernel_signal(SIGKILL);
}

void coax_thread_signal(struct task_struct *task)
{
	send_sig(SIGKILL, task, 1);
}

void coax_cond_resched(void)
{
	cond_resched();
}

bool coax_need_resched(void)
{
	cpu_relax();
	return need_resched();
}

void coax_preempt_disable(void)
{
	preempt_disable();
}

void coax_preempt_enable(void)
{
	preempt_enable();
}

u64 coax_boottime_ns(void)
{
	return ktime_get_boottime_ns();
}

// SPDX-License-Identifier: GPL-2.0
/* Address spaces, their mappings and page tables. */
#include "shim.h"

#include <linux/hugetlb.h>
#include <linux/memcontrol.h>
#include <linux/pid.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/userfaultfd_k.h>

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

bool coax_vma_has_anon(struct vm_area_struct *vma)
{
	return !(vma->vm_flags & (VM_SHARED | VM_SPECIAL)) && !is_vm_hugetlb_page(vma);
}

u64 coax_total_pages(void)
{
	return totalram_pages();
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

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One C function for each inline function or macro that the driver needs. bindgen reads this
 * file, so that the C and the Rust side cannot differ.
 */
#ifndef COAX_SHIM_H
#define COAX_SHIM_H

#include <linux/cgroup_dmem.h>
#include <linux/hmm.h>
#include <linux/memory.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/mmu_notifier.h>
#include <linux/poll.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/workqueue.h>
#include <linux/version.h>

/* In what versions of Linux differ, where Rust has to know. */
enum coax_version {
	/* hmm_range_fault_unlocked_timeout() is there, and test_hmm has a call for it. */
	COAX_HAS_UNLOCKED_FAULTS = LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0),
};

/* Locks, completions, workqueues (sync.c). */
unsigned long coax_spin_lock_irqsave(spinlock_t *lock);
int coax_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void coax_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);
void coax_init_completion(struct completion *done);
void coax_reinit_completion(struct completion *done);
unsigned long coax_wait_for_completion_ms(struct completion *done, unsigned int ms);
long coax_wait_for_completion_killable_ms(struct completion *done, unsigned int ms);
struct workqueue_struct *coax_alloc_workqueue(void);
struct workqueue_struct *coax_alloc_unbound_workqueue(void);
void coax_flush_workqueue(struct workqueue_struct *wq);
bool coax_queue_work(struct workqueue_struct *wq, struct work_struct *work);
bool coax_queue_work_on(unsigned int cpu, struct workqueue_struct *wq, struct work_struct *work);
bool coax_queue_work_anywhere(struct work_struct *work);
unsigned int coax_this_cpu(void);
unsigned int coax_online_cpus(void);

/* Virtio (virtio.c). */
int coax_virtio_find_vqs(struct virtio_device *vdev, unsigned int count, struct virtqueue **vqs,
			 const char *const *names, void (*callback)(struct virtqueue *vq));
void coax_virtio_del_vqs(struct virtio_device *vdev);
void coax_virtio_device_ready(struct virtio_device *vdev);
void coax_virtio_synchronize_cbs(struct virtio_device *vdev);
bool coax_virtio_read_config(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len);
bool coax_virtio_get_shm(struct virtio_device *vdev, u8 id, u64 *addr, u64 *len);
u32 coax_virtio_type(struct virtio_device *vdev);
bool coax_virtio_has_feature(struct virtio_device *vdev, u32 bit);
bool coax_virtio_needs_reset(struct virtio_device *vdev);
bool coax_virtio_is_gone(struct virtio_device *vdev);
void *coax_virtio_get_drvdata(struct virtio_device *vdev);
void coax_virtio_set_drvdata(struct virtio_device *vdev, void *data);
struct device *coax_virtio_parent(struct virtio_device *vdev);
int coax_virtqueue_add(struct virtqueue *vq, void *out_buf, unsigned int out_len,
		       void *in_buf, unsigned int in_len, void *token);

/* Sharing page tables through an IOMMU (sva.c). A coax_sva is an iommu_sva, which some kernels do not have. */
struct coax_sva;
struct coax_sva *coax_sva_bind_current(struct device *dev);
u32 coax_sva_pasid(struct coax_sva *handle);
void coax_sva_unbind(struct coax_sva *handle);

/* PCI functions in one slot (pci.c). */
struct coax_pci_memory;
int coax_pci_watch(void);
void coax_pci_unwatch(void);
struct coax_pci_memory *coax_pci_memory_beside(struct virtio_device *vdev, u16 vendor, u16 device, int bar,
					       u64 *addr, u64 *len);
void coax_pci_memory_put(struct coax_pci_memory *memory);

/* Character devices (chardev.c). */
struct coax_chardev;
int coax_chardev_init(void);
void coax_chardev_exit(void);
struct coax_chardev *coax_chardev_add(const struct file_operations *fops, const char *name,
				      umode_t mode, void *data);
void coax_chardev_del(struct coax_chardev *chardev);
void *coax_chardev_lock(struct inode *inode);
void coax_chardev_unlock(struct inode *inode);

/* Pages and folios (page.c). */
struct page *coax_pfn_to_page(unsigned long pfn);
unsigned long coax_page_to_pfn(struct page *page);
unsigned long coax_folio_pfn(struct folio *folio);
bool coax_page_is_charged(struct page *page);
bool coax_page_is_device_private(struct page *page);
bool coax_page_is_device_coherent(struct page *page);
bool coax_pfn_is_zero(unsigned long pfn);
unsigned long coax_folio_nr_pages(struct folio *folio);
struct page *coax_alloc_folio_vma(struct vm_area_struct *vma, unsigned long addr, unsigned int order);
struct page *coax_alloc_folio(unsigned int order);
void coax_lock_page(struct page *page);
void coax_unlock_put_page(struct page *page);
bool coax_page_is_anon(struct page *page);
bool coax_page_is_plain_anon(struct page *page);
bool coax_page_is_under_writeback(struct page *page);
bool coax_page_is_zero(struct page *page);
void coax_mark_written(struct page *page);

/* Struct pages of device memory (pagemap.c). */
struct dev_pagemap *coax_folio_pgmap(struct folio *folio);
struct dev_pagemap *coax_page_pgmap(struct page *page);
void coax_device_folio_init(struct page *page, struct dev_pagemap *pgmap, unsigned int order);
void coax_device_folio_freed(struct folio *folio);
struct resource *coax_request_free_region(unsigned long size, const char *name);
struct resource *coax_request_region(u64 start, u64 len, const char *name);
void coax_release_region(struct resource *res);
void *coax_map_bar(u64 addr, u64 len);
void coax_unmap_bar(void *mapped);
void *coax_phys_to_virt(u64 addr);

/* Memory nodes (node.c). */
int coax_virtio_node(struct virtio_device *vdev);
unsigned int coax_online_nodes(void);
bool coax_node_is_vacant(int nid);
u64 coax_node_free_movable_pages(int nid);
bool coax_node_has_room(int nid);
struct page *coax_alloc_folio_node(int nid, unsigned int order);
bool coax_vma_may_use_node(struct vm_area_struct *vma, int nid);
bool coax_current_may_use_node(int nid);
bool coax_pfn_is_movable(unsigned long pfn);

/* Address spaces (mm.c). */
struct page *coax_make_exclusive(struct mm_struct *mm, unsigned long addr, void *owner);
int coax_mmap_read_lock_killable(struct mm_struct *mm);
int coax_fault_in(struct vm_area_struct *vma, unsigned long addr, bool write, bool wait, bool *unlocked);
bool coax_vma_is_watched(struct vm_area_struct *vma);
unsigned long coax_vma_next_mapped(struct vm_area_struct *vma, unsigned long addr, unsigned long end);
void *coax_charge_to(struct mm_struct *mm);
void coax_charge_end(void *before);
bool coax_vma_has_anon(struct vm_area_struct *vma);
u64 coax_total_pages(void);
struct mm_struct *coax_current_mm(void);
struct mm_struct *coax_get_mm_of_pid(int pid);
unsigned long coax_task_size(struct mm_struct *mm);
bool coax_vma_is_anonymous(struct vm_area_struct *vma);
bool coax_vma_has_page_table(struct vm_area_struct *vma, unsigned long addr);
struct vm_area_struct *coax_find_vma(struct mm_struct *mm, unsigned long addr);
bool coax_mm_is_current(struct mm_struct *mm);

/* Notifiers (notifier.c). */
int coax_notifier_from_errno(int err);
bool coax_notifier_is_exclusive(const struct mmu_notifier_range *range, void *owner);
bool coax_notifier_is_unmap(const struct mmu_notifier_range *range);
bool coax_notifier_blockable(const struct mmu_notifier_range *range);
void coax_notifier_set_seq(struct mmu_interval_notifier *sub, unsigned long seq);
bool coax_notifier_retry(struct mmu_interval_notifier *sub, unsigned long seq);
unsigned long coax_notifier_start(const struct mmu_notifier_range *range);
unsigned long coax_notifier_end(const struct mmu_notifier_range *range);

/* Limits of device memory by cgroup (dmem.c). */
struct coax_dmem;
typedef int coax_dmem_reclaim_fn(struct dmem_cgroup_pool_state *pool, u64 bytes, void *data);
struct coax_dmem *coax_dmem_register(u64 size, const char *name, coax_dmem_reclaim_fn *reclaim, void *data);
void coax_dmem_unregister(struct coax_dmem *dmem);
u64 coax_dmem_group(void);
struct kthread_worker *coax_dmem_charger(void);
void coax_dmem_charger_end(struct kthread_worker *worker);
unsigned int coax_dmem_charge(struct coax_dmem *dmem, struct kthread_worker *worker, u64 unit,
			      unsigned int units, struct dmem_cgroup_pool_state **pool);
void coax_dmem_uncharge(struct dmem_cgroup_pool_state *pool, u64 unit, unsigned int units);
bool coax_dmem_covers(struct dmem_cgroup_pool_state *limit, struct dmem_cgroup_pool_state *pool);

/* The calling task (task.c). */
bool coax_admin(void);
bool coax_may_exceed(void);
bool coax_may_trace(void);
bool coax_fatal_signal_pending(void);
void coax_thread_takes_signals(void);
void coax_thread_signal(struct task_struct *task);
void coax_cond_resched(void);
bool coax_need_resched(void);
void coax_preempt_disable(void);
void coax_preempt_enable(void);
u64 coax_boottime_ns(void);

/* Tracepoints (src/trace.h). */
void coax_trace_page_request(u32 context, u64 va, u32 npages, u32 flags);
void coax_trace_group_response(u32 context, u32 tag, u32 code);
void coax_trace_to_device(u32 context, u64 va, u64 pages);
void coax_trace_to_system(u64 va, u64 pages, u32 cause);
void coax_trace_invalidate(u32 context, u64 start, u64 end);
void coax_trace_command(u32 context, u32 opcode, u64 id);
void coax_trace_command_done(u32 context, u64 id, u32 status);

#endif

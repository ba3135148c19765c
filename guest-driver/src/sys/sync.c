// SPDX-License-Identifier: GPL-2.0
/* Locks, completions and workqueues. */
#include "shim.h"

#include <linux/completion.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

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

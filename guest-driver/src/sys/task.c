// SPDX-License-Identifier: GPL-2.0
/* The calling task: what it may do, and whether it has to go on. */
#include "shim.h"

#include <linux/capability.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

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

/* Kernels that are preempted lazily let ordinary tasks run at the next tick, or when asked like this. */
void coax_cond_resched(void)
{
	cond_resched();
	if (test_thread_flag(TIF_NEED_RESCHED_LAZY))
		schedule();
}

bool coax_need_resched(void)
{
	cpu_relax();
	return need_resched() || test_thread_flag(TIF_NEED_RESCHED_LAZY);
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
